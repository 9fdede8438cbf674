import { create } from '@bufbuild/protobuf';
import { type Finding, FindingSchema, Severity_Value } from '../gen/lightkeeper/v1/types_pb.ts';

/** The text and counts of a finding. */
export interface FindingText {
  readonly message: string;
  readonly hint?: string;
  readonly count?: number;
  readonly snapshots?: string[];
  readonly keys?: string[];
}

/** Makes a finding. `code` is a word of docs/errors.md, `object` the file or thing that it concerns. */
export function finding(code: string, severity: Severity_Value, object: string, text: FindingText): Finding {
  return create(FindingSchema, {
    code,
    severity,
    object,
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
