import { normalise } from '../../core/errors.ts';
import { warning } from '../../core/finding.ts';
import { isWorkspaceOf } from '../../core/graph-id.ts';
import { idOf, type StoredSnapshot } from '../../core/snapshot.ts';
import type { Fork } from '../../gen/lightkeeper/v1/agent_pb.ts';
import type { GraphHead } from '../../gen/lightkeeper/v1/peer_pb.ts';
import type { Finding } from '../../gen/lightkeeper/v1/types_pb.ts';
import { waited } from '../../host/clock.ts';
import type { FollowEvent } from '../peer/follow-session.ts';
import { followGraph } from '../peer/follower.ts';
import { watchSource } from '../peer/graph-watch.ts';
import { recordFork } from '../snapshots/forks.ts';
import { resolveSnapshot, ungradedIds } from '../snapshots/resolve.ts';
import { retainedOf } from '../snapshots/retention.ts';
import type { FollowedGraph } from './followed-graph.ts';

/** Milliseconds between two searches for older snapshots that are not graded. */
const UNGRADED_EVERY_MS = 5000;

/** Follows a graph as its standby until the signal aborts, and grades what it receives. */
export async function runAsStandby(graph: FollowedGraph, signal: AbortSignal): Promise<void> {
  await new StandbyRun(graph, signal).run();
}

/** Watches the heads of a graph and of its workspaces at the source until the signal aborts. */
export async function watchHeads(
  graph: FollowedGraph,
  onHeads: (heads: readonly GraphHead[], roundTripMs: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const { settings, parts } = graph;
  await watchSource(
    {
      url: settings.follow,
      dial: parts.dial,
      agent: parts.agent,
      graphId: settings.graphId,
      onHeads: (heads, roundTripMs) =>
        onHeads(
          heads.filter(
            ({ graphId }) => graphId === settings.graphId || isWorkspaceOf(graphId, settings.graphId),
          ),
          roundTripMs,
        ),
      // The stream of the graph reports why the source cannot be reached.
      onSilent: () => {},
    },
    signal,
  );
}

class StandbyRun {
  readonly #graph: FollowedGraph;
  readonly #signal: AbortSignal;
  /** Newest snapshot that was received and is not graded yet. */
  #ungraded: StoredSnapshot | undefined;
  #wake: () => void = () => {};

  constructor(graph: FollowedGraph, signal: AbortSignal) {
    this.#graph = graph;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    await Promise.all([this.#follow(), this.#grade()]);
  }

  async #follow(): Promise<void> {
    const { settings, parts } = this.#graph;
    const { store } = parts.taker;
    const { graphId, follow, retention } = settings;
    await followGraph(
      {
        store,
        graphId,
        agent: parts.agent,
        url: follow,
        dial: parts.dial,
        reserveBytes: parts.reserveBytes,
        retained: (listed) => retainedOf(store, { graphId, policy: retention }, listed),
        keepFork: async (ancestor) => {
          const fork = await recordFork(store, graphId, ancestor);
          if (fork !== undefined) parts.events.warned(graphId, forkFinding(fork));
        },
        onEvent: (event) => this.#take(event),
        onDisconnected: (error) => {
          if (this.#graph.disconnected(error)) parts.events.failed(graphId, error);
        },
      },
      this.#signal,
    );
  }

  #take(event: FollowEvent): void {
    const { settings, parts } = this.#graph;
    switch (event.type) {
      case 'welcomed':
        this.#graph.connected(event.agent, event.version);
        return;
      case 'received':
        this.#graph.received(event.bytes);
        return;
      case 'committed':
        this.#graph.idle(false);
        this.#graph.committed(event.snapshot);
        if (event.isHistory) return;
        this.#ungraded = event.snapshot;
        this.#wake();
        return;
      case 'incomplete':
        parts.events.warned(
          settings.graphId,
          warning('source_incomplete', Buffer.from(event.digest).toString('hex').slice(0, 32), {
            message: `the source lacks ${event.missing} units of this snapshot`,
            hint: 'run lightkeeper repair on the source',
          }),
        );
        return;
      case 'idle':
        this.#graph.idle(true);
    }
  }

  /** Grades the newest snapshot soon, and older ones when there is time. */
  // A hint of the source is never counted: a point is usable here once this agent has proven it.
  async #grade(): Promise<void> {
    while (!this.#signal.aborted) {
      const newest = this.#ungraded;
      this.#ungraded = undefined;
      if (newest !== undefined) await this.#gradeOne(newest, true);
      else if (!(await this.#gradeOlder())) await this.#nextSnapshot();
    }
  }

  async #nextSnapshot(): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    const ended = new AbortController();
    const signal = AbortSignal.any([this.#signal, ended.signal]);
    await Promise.race([woken, waited(UNGRADED_EVERY_MS, signal)]);
    ended.abort();
  }

  async #gradeOlder(): Promise<boolean> {
    const { settings, parts } = this.#graph;
    const { store } = parts.taker;
    const [id] = await ungradedIds(store, settings.graphId);
    if (id === undefined) return false;
    return await this.#gradeOne(await resolveSnapshot(store, id, settings.graphId), false);
  }

  /** Grades a snapshot. Returns whether that succeeded. */
  async #gradeOne(snapshot: StoredSnapshot, isNewest: boolean): Promise<boolean> {
    const { settings, parts } = this.#graph;
    const { grader } = parts.taker;
    const { lossShare, graphId } = settings;
    try {
      const graded = isNewest
        ? await grader.grade(snapshot, lossShare, this.#signal)
        : await grader.gradeAgain(snapshot, lossShare, this.#signal);
      if (isNewest) await this.#graph.report(graded);
      return true;
    } catch (error) {
      if (this.#signal.aborted) return false;
      const { code, message, hint } = normalise(error);
      // It may have been pruned since it was listed.
      if (code !== 'NOT_FOUND')
        parts.events.warned(graphId, warning('not_graded', idOf(snapshot), { message, hint }));
      return false;
    }
  }
}

function forkFinding({ forkId, snapshotIds }: Fork): Finding {
  return warning('fork_kept', forkId, {
    message: `${snapshotIds.length} points of this store never reached the present primary: they are kept as fork ${forkId.slice(0, 12)}`,
    hint: 'see them with lightkeeper forks list; accept or drop the fork when it is settled',
  });
}
