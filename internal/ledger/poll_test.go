package ledger

import (
	"testing"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/typeid"
)

// due is an audit to be polled in the bundle's merchant.
func (b *bundle) due(t *testing.T, deadline any) {
	t.Helper()
	b.texts(t, `INSERT INTO audits (tenant_id, id, merchant_id, kind, subject_type, subject_id, status, status_rank, source, next_poll_at, deadline_at)
		VALUES ($1, $2, $3, 'map_poi', 'map_poi', $2, 'in_review', 20, 'response', now(), $4::text::timestamptz) RETURNING ''`,
		b.merchant.TenantID, typeid.New(), b.merchant.ID, deadline)
}

// Audits of one tenant that can't be read keep nobody else's from being polled,
// and those have been when PollDue returns.
func TestPollDueBesideATenantThatCantBeRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.due(t, nil)
	for range 5 {
		other := *b
		other.merchant.TenantID, other.merchant.ID = typeid.New(), typeid.New()
		other.merchant.AppID = other.merchant.ID.String()
		err := b.db.InTenant(t.Context(), other.merchant.TenantID, func(tx postgres.DBTX) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, $2, $2, $2)`, other.merchant.TenantID, other.merchant.TenantID.String()); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `INSERT INTO merchants (tenant_id, id, appid, status) VALUES ($1, $2, $3, 'authorized')`,
				other.merchant.TenantID, other.merchant.ID, other.merchant.AppID)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		other.due(t, "infinity") // which no time.Time can hold
	}
	if err := b.ledgers[0].PollDue(t.Context()); err == nil {
		t.Error("what could not be read is not told")
	}
	if got := b.texts(t, `SELECT poll_n::text FROM audits`); got != "1" {
		t.Errorf("the other tenant's audit was polled %s times, want once", got)
	}
}
