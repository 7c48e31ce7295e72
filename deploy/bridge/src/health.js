/** Serves /livez and /readyz for probes. */

import { createServer } from 'node:http'

/** Return a server that is ready while all services are available and `started()` is true. */
export function openHealth(services, started) {
  const server = createServer({ headersTimeout: 5000, requestTimeout: 5000, keepAliveTimeout: 5000 }, (request, response) => {
    const [status, body] = answer(request, services, started)
    response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
    response.end(request.method === 'HEAD' ? undefined : `${JSON.stringify(body)}\n`)
  })
  server.maxConnections = 50
  return server
}

function answer(request, services, started) {
  if (!['GET', 'HEAD'].includes(request.method)) return [405, { error: 'only GET is allowed' }]
  if (request.url === '/livez') return [200, { live: true }]
  if (request.url !== '/readyz') return [404, { error: 'there are /livez and /readyz' }]
  const reasons = Object.fromEntries(Object.entries(services).flatMap(([name, { reason }]) => (reason ? [[name, reason]] : [])))
  const ready = started() && Object.keys(reasons).length === 0
  return [ready ? 200 : 503, { ready, ...reasons }]
}
