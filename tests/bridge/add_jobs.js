/** Adds jobs to Langfuse's export queue by BullMQ itself, with the options that Langfuse gives them: the data come as JSON. */

import { readFileSync } from 'node:fs'

import { Queue } from 'bullmq'
import { Cluster, Redis } from 'ioredis'

const { port, password, cluster, prefix, data } = JSON.parse(readFileSync(0, 'utf8'))
const connection = cluster ? new Cluster([{ host: '127.0.0.1', port }]) : new Redis({ host: '127.0.0.1', port, password })
const defaultJobOptions = {
  removeOnComplete: true,
  removeOnFail: 10_000,
  attempts: 8,
  backoff: { type: 'exponential', delay: 5000 }
}
const queue = new Queue('batch-export-queue', { connection, prefix, defaultJobOptions })
await queue.addBulk(data.map((each) => ({ name: 'batch-export-job', data: each })))
await queue.close()
connection.disconnect()
