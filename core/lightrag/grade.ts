import { type Finding, Grade_Value, Severity_Value } from '../../gen/lightkeeper/v1/types_pb.ts';

/** The grade of one whole state, by what was found in it. */
export function gradeOf(findings: readonly Finding[]): Grade_Value {
  const has = (wanted: Severity_Value) => findings.some(({ severity }) => severity === wanted);
  if (has(Severity_Value.ERROR)) return Grade_Value.INVALID;
  return has(Severity_Value.WARNING) ? Grade_Value.DEGRADED : Grade_Value.VALID;
}
