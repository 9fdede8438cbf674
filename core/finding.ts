import { create } from '@bufbuild/protobuf';
import {
  type Finding,
  FindingSchema,
  ObjectKind_Value,
  Severity_Value,
} from '../gen/lightkeeper/v1/types_pb.ts';

/** The text and counts of a finding. */
export interface FindingText {
  readonly message: string;
  readonly hint?: string;
  readonly count?: number;
  readonly snapshots?: string[];
  readonly keys?: string[];
}

/** What the object of a finding is, by its code; a file of the graph for every code that is not listed. */
const OBJECT_KINDS: Readonly<Record<string, ObjectKind_Value>> = {
  config_damaged: ObjectKind_Value.STORE,
  emptied: ObjectKind_Value.RECORDS,
  graph_moved: ObjectKind_Value.PATH,
  graph_emptied: ObjectKind_Value.RECORDS,
  graph_shrunk: ObjectKind_Value.RECORDS,
  hook_failed: ObjectKind_Value.HOOK,
  instance_locked: ObjectKind_Value.INSTANCE,
  instance_running: ObjectKind_Value.INSTANCE,
  instance_silent: ObjectKind_Value.INSTANCE,
  instance_unusable: ObjectKind_Value.INSTANCE,
  no_graph: ObjectKind_Value.PATH,
  not_graded: ObjectKind_Value.SNAPSHOT,
  not_healed: ObjectKind_Value.SNAPSHOT,
  older_server: ObjectKind_Value.SNAPSHOT,
  other_embedding_model: ObjectKind_Value.INSTANCE,
  other_directory: ObjectKind_Value.INSTANCE,
  owner_changed: ObjectKind_Value.PATH,
  outside_storage: ObjectKind_Value.INSTANCE,
  pack_damaged: ObjectKind_Value.PACK,
  pack_missing: ObjectKind_Value.PACK,
  pack_quarantined: ObjectKind_Value.PACK,
  passed_over: ObjectKind_Value.SNAPSHOT,
  restore_leftover: ObjectKind_Value.PATH,
  restore_rolled_back: ObjectKind_Value.PATH,
  restore_rolled_forward: ObjectKind_Value.PATH,
  peer_failed: ObjectKind_Value.PEER,
  would_fetch: ObjectKind_Value.SNAPSHOT,
  root_metadata_kept: ObjectKind_Value.PATH,
  same_device: ObjectKind_Value.STORE,
  fork_kept: ObjectKind_Value.SNAPSHOT,
  source_incomplete: ObjectKind_Value.SNAPSHOT,
  server_unknown: ObjectKind_Value.SNAPSHOT,
  snapshot_damaged: ObjectKind_Value.SNAPSHOT,
  stray_file: ObjectKind_Value.STORE,
  watch_given_up: ObjectKind_Value.PATH,
  workspaces_unchecked: ObjectKind_Value.PATH,
  workspace_not_guarded: ObjectKind_Value.PATH,
};

/** Makes a finding. `code` is a word of docs/errors.md, `object` the file or thing that it concerns. */
export function finding(code: string, severity: Severity_Value, object: string, text: FindingText): Finding {
  return create(FindingSchema, {
    code,
    severity,
    object,
    objectKind: OBJECT_KINDS[code] ?? ObjectKind_Value.FILE,
    message: text.message,
    hint: text.hint ?? '',
    count: text.count ?? 1,
    snapshots: text.snapshots ?? [],
    keys: text.keys ?? [],
  });
}

/** Makes a finding of severity ERROR: something is wrong. */
export function errorFinding(code: string, object: string, text: FindingText): Finding {
  return finding(code, Severity_Value.ERROR, object, text);
}

/** Makes a finding of severity WARNING: something was left out or may become wrong. */
export function warning(code: string, object: string, text: FindingText): Finding {
  return finding(code, Severity_Value.WARNING, object, text);
}
