package quota

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/typeid"
)

// The rule is SQL, so that every process follows the same one: what it grants is
// the most that keeps the bucket within its limit and background work within its
// half, and nothing once WeChat has closed it. A hundred cases a round trip.
func TestGrant(t *testing.T) {
	t.Parallel()
	db, ctx := pgtest.New(t), t.Context()
	rapid.Check(t, func(t *rapid.T) {
		const cases = 100
		draw := func(name string, low, high int32) []int32 {
			return rapid.SliceOfN(rapid.Int32Range(low, high), cases, cases).Draw(t, name)
		}
		n, most := draw("n", 0, 40), draw("most", 0, 60)
		used, background := draw("used", 0, 70), draw("used in background", 0, 40)
		closed := rapid.SliceOfN(rapid.Bool(), cases, cases).Draw(t, "closed")
		in := rapid.SliceOfN(rapid.Bool(), cases, cases).Draw(t, "in background")
		var grants []int32
		err := db.InTenant(ctx, typeid.New(), func(tx postgres.DBTX) error {
			return tx.QueryRow(ctx, `SELECT array_agg(quota_grant(n, most, used, background, closed, in_background) ORDER BY i)
				FROM unnest($1::int[], $2::int[], $3::int[], $4::int[], $5::bool[], $6::bool[]) WITH ORDINALITY AS c (n, most, used, background, closed, in_background, i)`,
				n, most, used, background, closed, in).Scan(&grants)
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range grants {
			fits := func(g int32) bool {
				return g <= n[i] && used[i]+g <= most[i] && (!in[i] || background[i]+g <= most[i]/2) && !closed[i]
			}
			if g < 0 || g > 0 && !fits(g) || g < n[i] && fits(g+1) {
				t.Fatalf("granted %d of %d where %d of %d are used, %d in background, closed %v, for the background %v",
					g, n[i], used[i], most[i], background[i], closed[i], in[i])
			}
		}
	})
}
