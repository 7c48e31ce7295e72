/** Knows whether a service is available, and logs when that changes. */

const SAME_MS = 60_000

/** Return the first lines of all messages of an error, innermost last: clients wrap the reason several times. */
export function explain(error) {
  const inner = [error.cause, ...(error.errors ?? [])].filter(Boolean).map(explain)
  const message = (error.message || error.code || String(error)).split('\n')[0].replace(/\.$/, '')
  return [...new Set([message, ...inner])].join(': ')
}

export class Service {
  /** Why it is not available; undefined while it is. */
  reason = 'not connected yet'
  #name
  #log
  #logged = { reason: '', at: -SAME_MS }

  constructor(name, log) {
    this.#name = name
    this.#log = log
  }

  found() {
    if (this.reason === undefined) return
    this.reason = undefined
    this.#logged = { reason: '', at: -SAME_MS }
    this.#log.info(`${this.#name} is available`)
  }

  /** Log the reason; again only if it changes, and once a minute. */
  lost(error) {
    const reason = explain(error)
    const after = performance.now() - this.#logged.at
    if (reason !== this.#logged.reason || after >= SAME_MS) {
      this.#log.warning(`${this.#name} is not available, trying again`, { reason })
      this.#logged = { reason, at: performance.now() }
    }
    this.reason = reason
  }
}
