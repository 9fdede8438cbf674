import type { Registry } from 'prom-client';
import type { HttpRoute } from './http.ts';

/** Returns the route of a registry in the Prometheus text format. `refresh` runs before each scrape. */
export function metricsRoute(registry: Registry, refresh: () => Promise<void> = async () => {}): HttpRoute {
  return async () => {
    await refresh();
    return {
      status: 200,
      contentType: 'text/plain; version=0.0.4; charset=utf-8',
      body: await registry.metrics(),
    };
  };
}
