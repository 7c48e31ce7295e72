/** Knows whether a service is available, and logs when that changes. */

const SAME_MS = 60_000
const MOST_REASONS = 20

/** Return the first lines of all messages of an error, innermost last: clients wrap the reason several times. */
export function explain(error) {
  const inner = [error.cause, ...(error.errors ?? [])].filter(Boolean).map(explain)
  const message = (error.message || error.code || String(error)).split('\n')[0].replace(/\.$/, '')
  return [...new Set([message, ...inner])].join(': ')
}

/** Tells which reasons are new, once a minute each: clients try again several times a second, and reasons can alternate. */
class Reasons {
  #told = new Map()

  isNew(reason) {
    const now = performance.now()
    if (now - (this.#told.get(reason) ?? -SAME_MS) < SAME_MS) return false
    if (this.#told.size >= MOST_REASONS) this.#told.clear()
    this.#told.set(reason, now)
    return true
  }

  forget() {
    this.#told.clear()
  }
}

export class Service {
  /** Why it is not available; undefined while it is. */
  reason = 'not connected yet'
  #name
  #log
  #ofLosses = new Reasons()
  #ofFailures = new Reasons()

  constructor(name, log) {
    this.#name = name
    this.#log = log
  }

  found() {
    if (this.reason === undefined) return
    this.reason = undefined
    this.#ofLosses.forget()
    this.#log.info(`${this.#name} is available`)
  }

  /** A connection was closed; the reason that is known already tells more. */
  closed() {
    if (this.reason === undefined) this.lost(new Error('the connection is closed'))
  }

  lost(error) {
    this.reason = explain(error)
    if (this.#ofLosses.isNew(this.reason)) this.#log.warning(`${this.#name} is not available, trying again`, { reason: this.reason })
  }

  /** An operation failed although the service is available. */
  failed(error) {
    const reason = explain(error)
    if (this.reason === undefined && this.#ofFailures.isNew(reason)) this.#log.warning('an operation on the queue failed', { reason })
  }
}
