/**
 * Starts the bridge. It handles signals before it loads the libraries, which takes a second on a busy machine: the first
 * process of a container does not receive a signal that it does not handle, and would run until it is killed.
 */

const stopping = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stopping.abort())

const { runBridge } = await import('./bridge.js')
runBridge(stopping.signal)
