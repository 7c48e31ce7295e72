/** Knows whether a service is available, and logs when that changes. */

const SAME_MS = 60_000
const MOST_REASONS = 20

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
  /** When each reason was logged. */
  #logged = new Map()

  constructor(name, log) {
    this.#name = name
    this.#log = log
  }

  found() {
    if (this.reason === undefined) return
    this.reason = undefined
    this.#logged.clear()
    this.#log.info(`${this.#name} is available`)
  }

  /** A connection was closed; the reason that is known already tells more. */
  closed() {
    if (this.reason === undefined) this.lost(new Error('the connection is closed'))
  }

  /** Log each reason once a minute: clients try again several times a second, and reasons can alternate. */
  lost(error) {
    this.reason = explain(error)
    const now = performance.now()
    if (now - (this.#logged.get(this.reason) ?? -SAME_MS) < SAME_MS) return
    if (this.#logged.size >= MOST_REASONS) this.#logged.clear()
    this.#logged.set(this.reason, now)
    this.#log.warning(`${this.#name} is not available, trying again`, { reason: this.reason })
  }
}
