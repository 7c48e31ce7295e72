/** Reads values of environment variables, and collects a sentence for each that is wrong. */

import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'

export class Reader {
  problems = []
  #environment

  constructor(environment) {
    this.#environment = environment
  }

  /** The value of a variable; undefined if it is unset or empty. */
  text(name) {
    return this.#environment[name]?.trim() || undefined
  }

  /** As `text`, but blanks at the ends belong to the value. */
  secret(name) {
    return this.#environment[name] || undefined
  }

  /** One of some values, or `fallback`. */
  choice(name, allowed, fallback) {
    const value = this.text(name) ?? fallback
    if (allowed.includes(value)) return value
    this.problems.push(`${name} is ${JSON.stringify(value)}; it can be ${allowed.join(', ')}`)
    return fallback
  }

  flag(name, fallback) {
    return this.choice(name, ['true', 'false'], String(fallback)) === 'true'
  }

  /** A value that matches a pattern, which `expected` describes. */
  match(name, pattern, expected) {
    const value = this.text(name)
    if (value !== undefined && !pattern.test(value)) this.problems.push(`${name} is ${JSON.stringify(value)}; expected is ${expected}`)
    return value
  }

  port(name, fallback) {
    const value = this.text(name) ?? String(fallback)
    if (/^\d+$/.test(value) && Number(value) <= 65535) return Number(value)
    this.problems.push(`${name} is ${JSON.stringify(value)}; expected is a port from 0 to 65535`)
    return fallback
  }

  /** The servers of `host:port,host:port`; undefined if the variable is unset. */
  servers(name, fallbackPort) {
    return this.text(name)
      ?.split(',')
      .map((each) => this.#server(name, each.trim(), fallbackPort))
  }

  #server(name, server, fallbackPort) {
    const found = /^(\[[0-9A-Fa-f:.]+\]|[^\s:@/[\]]+)(?::(\d+))?$/.exec(server)
    const port = Number(found?.[2] ?? fallbackPort)
    if (!found || !(port >= 1 && port <= 65535)) {
      // A password that is misplaced here is not repeated.
      const shown = server.includes('@') ? '' : ` ${JSON.stringify(server)}`
      this.problems.push(`${name} has the invalid server${shown}; expected is host:port, several are separated by commas`)
      return { host: '', port: 0 }
    }
    return { host: found[1].replace(/^\[(.*)\]$/, '$1'), port }
  }

  /** The bytes of the file that a variable names; undefined if the variable is unset or the file can't be read. */
  file(name) {
    const path = this.text(name)
    if (path === undefined) return undefined
    try {
      return readFileSync(path)
    } catch (error) {
      this.problems.push(`${name} is ${JSON.stringify(path)}, which can't be read: ${error.code ?? error.message}`)
      return undefined
    }
  }

  /** The authorities in the file that a variable names. */
  authorities(name) {
    const content = this.file(name)
    if (content !== undefined && !content.includes('-----BEGIN CERTIFICATE-----')) {
      this.problems.push(`${name} is ${JSON.stringify(this.text(name))}, which contains no certificate in PEM format`)
    }
    return content
  }

  /** Check that certificate, key and password fit together; `names` says which variables they come from. */
  checkTls(options, names) {
    if (this.problems.length > 0) return
    try {
      createSecureContext(options)
    } catch (error) {
      this.problems.push(`${names} can't be used: ${error.message}`)
    }
  }
}
