/** Runs the bridge: takes jobs from Langfuse's export queue, and publishes a request to Kafka for each. */

import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import { Worker } from 'bullmq'

import { handOver } from './hand_over.js'
import { openHealth } from './health.js'
import { openLog } from './log.js'
import { Publisher } from './publisher.js'
import { nameQueue, openRedis } from './redis.js'
import { Service } from './service.js'
import { Misconfigured, readSettings } from './settings.js'

const STOP_MS = 10_000
const WORKER = {
  autorun: false,
  // Bounds the memory: the other jobs wait in Redis.
  concurrency: 10,
  lockDuration: 30_000,
  // A job whose bridge was killed is taken within these seconds after its lock has ended.
  stalledInterval: 5_000,
  // A job is kept however often a bridge dies with it: the request that it may have published does no harm twice.
  maxStalledCount: 1_000_000,
  removeOnComplete: { count: 0 }
}

/** Run the bridge until `stopping` is aborted, and end the process. */
export function runBridge(stopping) {
  run(stopping).then(
    () => process.exit(0),
    (error) => {
      if (!(error instanceof Misconfigured)) fail(openLog('json'), error)
      for (const problem of error.problems) process.stderr.write(`waybill-bridge: ${problem}\n`)
      process.exit(2)
    }
  )
}

async function run(stopping) {
  const settings = readSettings(process.env)
  const log = openLog(settings.logFormat)
  const services = { redis: new Service('Redis', log), kafka: new Service('Kafka', log) }
  // BullMQ does not await all calls that fail when it closes a connection that Redis has refused.
  const failUnlessStopping = (error) => stopping.aborted || fail(log, error)
  process.on('unhandledRejection', failUnlessStopping)

  let running = false
  const health = await listen(openHealth(services, () => running), settings, log)
  const publisher = new Publisher(settings.kafka, settings.topic, services.kafka)
  const redis = openRedis(settings.redis, services.redis)
  const worker = openWorker(settings.redis, redis, handOver(publisher, stopping, log), services.redis, log)
  try {
    await publisher.check(stopping)
    worker.run().catch(failUnlessStopping)
    running = true
    log.info('handing over jobs', { queue: worker.name, topic: settings.topic })
    await once(stopping, 'abort')
  } catch (error) {
    if (!stopping.aborted) throw error
  }
  await stop(log, { worker, publisher, redis, health })
}

function openWorker(redisSettings, connection, processor, service, log) {
  const { name, prefix } = nameQueue(redisSettings)
  const worker = new Worker(name, processor, { ...WORKER, connection, prefix })
  // Without a listener, an error of a connection would end the process.
  worker.on('error', (error) => service.failed(error))
  worker.on('failed', (job, error) => log.error('a job failed and stays in the queue as failed', { jobId: job?.id, reason: error.message }))
  worker.on('stalled', (jobId) => log.warning('took the job of a bridge that ended without completing it', { jobId }))
  return worker
}

async function listen(health, { host, port }, log) {
  health.listen(port, host)
  await once(health, 'listening').catch((error) => {
    throw new Misconfigured([`WAYBILL_INTERNAL_PORT is ${port}, on which ${host} can't listen: ${error.code}`])
  })
  log.info('listening', { host, port: health.address().port, serves: 'internal' })
  return health
}

/** Return running jobs to the queue and close the connections; jobs of a Redis that can't be used keep their locks. */
async function stop(log, { worker, publisher, redis, health }) {
  const closed = worker.close().then(() => redis.quit()).then(() => true, () => false)
  const late = sleep(STOP_MS, false, { ref: false })
  if (!(await Promise.race([closed, late]))) {
    log.warning("Redis can't be used: jobs that are not completed are handed over when their locks have ended")
  }
  redis.disconnect()
  await publisher.close().catch(() => {})
  health.close()
  health.closeAllConnections()
  log.info('stopped')
}

function fail(log, error) {
  log.error('the bridge ended because of an error', { reason: error.message, traceback: error.stack })
  process.exit(1)
}
