/** Connects to Redis as the settings say, and reports when it is lost and found. */

import { Cluster, Redis } from 'ioredis'

const QUEUE = 'batch-export-queue'
// Longer than BullMQ lets Redis wait for a job, which is 10 s.
const SILENT_MS = 20_000

/** The queue, and the prefix that Langfuse gives its keys: in a cluster, all keys of a queue are in one slot. */
export function nameQueue({ mode, keyPrefix }) {
  if (mode !== 'cluster') return { name: QUEUE, prefix: keyPrefix ?? 'bull' }
  return { name: QUEUE, prefix: `{${keyPrefix ? `${keyPrefix}:` : ''}${QUEUE}}` }
}

/** Open a client, which connects again by itself; `service` is told of each change. */
export function openRedis({ mode, nodes, options }, service) {
  const given = {
    ...options,
    maxRetriesPerRequest: null,
    keepAlive: 10_000,
    connectTimeout: 10_000,
    socketTimeout: SILENT_MS,
    retryStrategy: wait,
    // A server that has become a replica is left.
    reconnectOnError: (error) => error.message.startsWith('READONLY')
  }
  const client = mode === 'cluster' ? openCluster(nodes, given) : new Redis({ ...given, sentinelRetryStrategy: wait })
  client.on('ready', () => service.found())
  client.on('error', (error) => service.lost(error))
  client.on('close', () => service.closed())
  return client
}

function openCluster(nodes, redisOptions) {
  const { retryStrategy, ...options } = redisOptions
  return new Cluster(nodes, {
    redisOptions: options,
    clusterRetryStrategy: retryStrategy,
    // Names are left to TLS, whose certificates are for names.
    dnsLookup: (address, callback) => callback(null, address)
  })
}

function wait(attempt) {
  return Math.min(attempt * 200, 5000)
}
