package ledger

import (
	"testing"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
)

// A resolution and its line in the change log are one commit: what can't be
// recorded isn't done.
func TestResolutionIsRecordedWithItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	op := b.began(t, "place")
	b.texts(t, `UPDATE operations SET state = 'needs_attention', next_check_at = NULL RETURNING ''`)
	told := Resolution{Executed: true, WechatIDs: map[string]string{AuditID: "4711"}, Note: "seen"}
	state := func() string {
		return b.texts(t, `SELECT state || ' ' || (SELECT count(*) FROM wechat_id_ledger) || ' ' ||
			(SELECT count(*) FROM change_log WHERE action = 'operation.resolve' AND after ->> 'note' = 'seen') FROM operations`)
	}
	if r, err := l.Resolve(t.Context(), tenant.Caller{}, b.merchant, op.ID, told); err == nil {
		t.Errorf("resolved by nobody: %s", r.State)
	}
	if got := state(); got != "needs_attention 0 0" {
		t.Errorf("what could not be recorded was done: %s", got)
	}
	who := tenant.Caller{Actor: "test"}
	if r, err := l.Resolve(t.Context(), who, b.merchant, op.ID, told); err != nil || r.State != "succeeded" {
		t.Fatalf("resolved: %s, %v", r.State, err)
	}
	if _, err := l.Resolve(t.Context(), who, b.merchant, op.ID, told); !problem.HasCode(err, problem.CodeOperationNotResolvable) {
		t.Errorf("resolved once more: %v", err)
	}
	if got := state(); got != "succeeded 1 1" {
		t.Errorf("operation, ids and lines: %s", got)
	}
}
