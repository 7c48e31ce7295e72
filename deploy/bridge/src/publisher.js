/** Publishes requests to Kafka, each until every replica in sync has it. */

import { setTimeout as sleep } from 'node:timers/promises'

import { ProduceAcks, Producer, stringSerializers } from '@platformatic/kafka'

const SEND_MS = 30_000
const FIRST_WAIT_MS = 200
const LONGEST_WAIT_MS = 10_000

export class Publisher {
  #options
  #topic
  #service
  #producer

  constructor(options, topic, service) {
    this.#options = options
    this.#topic = topic
    this.#service = service
    this.#producer = this.#open()
  }

  /** Wait until Kafka knows the topic; rejects only when `stopping` is aborted. */
  async check(stopping) {
    await this.#repeat((producer) => producer.metadata({ topics: [this.#topic], forceUpdate: true }), stopping)
  }

  /** Publish a request, however long Kafka is not available; rejects only when `stopping` is aborted. */
  async publish({ projectId, batchExportId }, stopping) {
    const message = { topic: this.#topic, key: batchExportId, value: JSON.stringify({ projectId, batchExportId }) }
    await this.#repeat((producer) => producer.send({ messages: [message] }), stopping)
  }

  async close() {
    await this.#producer.close(true)
  }

  async #repeat(call, stopping) {
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
      stopping.throwIfAborted()
      const producer = this.#producer
      try {
        await withDeadline(call(producer), stopping)
        this.#service.found()
        return
      } catch (error) {
        stopping.throwIfAborted()
        this.#service.lost(error)
        this.#replace(producer)
      }
      await sleep(wait, undefined, { signal: stopping })
    }
  }

  /** Open another producer in place of one that failed: its connections and its sequence numbers may be of no use. */
  #replace(failed) {
    if (failed !== this.#producer) return
    this.#producer = this.#open()
    failed.close(true).catch((error) => this.#service.lost(error))
  }

  #open() {
    const producer = new Producer({
      clientId: 'waybill-bridge',
      ...this.#options,
      serializers: stringSerializers,
      acks: ProduceAcks.ALL,
      idempotent: true,
      retries: 2,
      timeout: 10_000,
      connectTimeout: 10_000,
      requestTimeout: SEND_MS
    })
    return producer
  }
}

/** Reject when a call takes longer than a client waits for a response, or when `stopping` is aborted. */
async function withDeadline(call, stopping) {
  const done = new AbortController()
  const options = { signal: AbortSignal.any([done.signal, stopping]) }
  const late = sleep(SEND_MS, undefined, options).then(() => {
    throw new Error(`no response within ${SEND_MS / 1000} s`)
  })
  try {
    return await Promise.race([call, late])
  } finally {
    done.abort()
    // Whichever of the two is later must not be an unhandled rejection.
    late.catch(() => {})
    call.catch(() => {})
  }
}
