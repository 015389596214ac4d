// Package rotation replaces the key of the keyset that seals what lies at rest
// while any number of processes serve: a key is added that only opens, seals
// once every process can open it, everything is sealed anew with it, and the
// key before it is taken away once nothing needs that.
//
// It must never take a key away that a row, a spool, a process or a caller's
// cursor still needs, and never let a key seal that a serving process lacks.
package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
)

// batch is how many rows are looked at in one transaction.
const batch = 200

// restFor is how long a process that has found everything resealed looks no
// further, unless the keyset changes.
const restFor = 10 * time.Minute

// A Holder is what a serving process does for a rotation. Its methods are for
// one goroutine each.
type Holder struct {
	DB     *postgres.DB
	Keyset *secret.Keyset
	Spool  *spool.Spool
	Log    *slog.Logger

	inSpool    []uint32  // other keys that the spool's records have
	resealed   uint32    // the key that the spool was last sealed anew with; 0: not yet
	resealedAt time.Time // when

	rest     time.Time // Reseal: until then there is nothing to do
	restWith uint32    // with this key
}

// Check is the same of the package, for the process that h serves in.
func (h *Holder) Check(ctx context.Context) error {
	return Check(ctx, h.DB, h.Keyset, h.Spool.Instance())
}

// Check refuses a keyset from before a rotation, or of another installation:
// one that lacks the key by which any process has sealed, or that seals with a
// key which one that serves lacks. Call it before anything is opened or sealed.
// own is the process that asks, of which nothing is wanted; "" is none.
func Check(ctx context.Context, db *postgres.DB, keyset *secret.Keyset, own string) error {
	all, err := holders(ctx, db)
	if err != nil {
		return err
	}
	mine := keyset.SealsWith()
	for _, p := range all {
		if err := opens(keyset, p); err != nil {
			return err
		}
		if p.Serving && p.Instance != own && !p.has(mine) {
			return fmt.Errorf("the keyset here seals with key %d, which process %s lacks, and it serves: bring the newest file there, or wait half a minute if it was ended", mine, p.Instance)
		}
	}
	return nil
}

// opens refuses a keyset that can't open what p seals.
func opens(keyset *secret.Keyset, p Process) error {
	if secret.HasKey(keyset.Keys(), p.SealsWith) {
		return nil
	}
	return fmt.Errorf("the keyset here lacks key %d, with which process %s seals, last seen %s: bring the newest file here. Only if that key is lost for good, and with it all that it sealed: gateway keyset forget %s",
		p.SealsWith, p.Instance, p.SeenAt.Format(time.RFC3339), p.Instance)
}

// Hold takes up what the keyset's file says by now, seals the spool anew when
// another key seals, and tells the others which keys this process holds. A file
// that can't be taken up is an error, and the former keys stay in use; so is a
// spool that can't be sealed anew, and the old keys stay needed. The others are
// told in either case: a process that they don't hear of is taken not to serve.
// An error as well is a key that one of them seals with and that is missing
// here: it may have begun to between Check and the first Hold.
func (h *Holder) Hold(ctx context.Context) error {
	changed, unread := h.Keyset.Reload()
	keys, seals := h.Keyset.Keys(), h.Keyset.SealsWith()
	if changed {
		h.Log.Info("keyset taken up", "seals_with", seals, "keys", len(keys))
	}
	// With one key alone nothing else in the spool could be opened.
	var unsealed error
	if h.resealed != seals && len(keys) > 1 || len(h.inSpool) > 0 && time.Since(h.resealedAt) > restFor {
		left, err := h.Spool.Reseal()
		h.inSpool, h.resealedAt = left, time.Now()
		if err != nil {
			unsealed = fmt.Errorf("seal the spool anew: %w", err)
			// It may need any of them, and is tried again the next time.
			h.inSpool, h.resealedAt = slices.DeleteFunc(idsOf(keys), func(id uint32) bool { return id == seals }), time.Time{}
		}
	}
	h.resealed = seals
	err := h.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		return dbsqlc.New().HolderKeep(ctx, tx, dbsqlc.HolderKeepParams{Instance: h.Spool.Instance(), KeyIds: wide(idsOf(keys)),
			SealsWith: int64(seals), SpoolKeyIds: wide(append(slices.Clone(h.inSpool), seals))})
	})
	all, lerr := holders(ctx, h.DB)
	errs := []error{unread, unsealed, err, lerr}
	for _, p := range all {
		if p.Serving {
			errs = append(errs, opens(h.Keyset, p))
		}
	}
	return errors.Join(errs...)
}

// Reseal seals anew what old keys have sealed, in all tables of all tenants, a
// few rows at a time. It begins when all who serve seal with the new key, one
// of them does it, and it may be cut off anywhere: what is left is found again.
func (h *Holder) Reseal(ctx context.Context) error {
	old, seals := secret.WithRole(h.Keyset.Keys(), secret.RoleOld), h.Keyset.SealsWith()
	if len(old) == 0 || h.restWith == seals && time.Now().Before(h.rest) {
		return nil
	}
	all, err := holders(ctx, h.DB)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Serving && (o.SealsWith != seals || o.Instance < h.Spool.Instance()) {
			return nil
		}
	}
	var tenants []uuid.UUID
	err = h.DB.InSystem(ctx, func(tx postgres.DBTX) (err error) {
		tenants, err = dbsqlc.New().TenantIDs(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	done, stuck := 0, 0
	for _, t := range postgres.SealedTables {
		of := tenants
		if t.OfNoTenant() {
			of = []uuid.UUID{uuid.Nil}
		}
		for _, tenant := range of {
			d, s, err := h.resealTable(ctx, tenant, t, old)
			done, stuck = done+d, stuck+s
			if err != nil {
				return fmt.Errorf("%s: %w", t.Name, err)
			}
		}
	}
	if done > 0 || stuck > 0 {
		h.Log.Info("sealed anew", "values", done, "not_opened", stuck, "seals_with", seals)
	}
	if done == 0 {
		h.rest, h.restWith = time.Now().Add(restFor), seals
	}
	return nil
}

func (h *Holder) resealTable(ctx context.Context, tenant uuid.UUID, t postgres.SealedTable, old []uint32) (done, stuck int, err error) {
	var after []string
	for {
		rows, err := h.DB.SealedRows(ctx, tenant, t, old, after, batch)
		if err != nil {
			return done, stuck, err
		}
		var all []postgres.Resealed
		for _, r := range rows {
			for i, column := range t.All() {
				if r.Values[i] == nil {
					continue
				}
				now, err := h.anew(secret.Place{Table: t.Name, Column: column, Tenant: tenant, AppID: r.AppID, Row: r.Row}, r.Values[i])
				if err != nil {
					h.Log.Error("a value isn't sealed anew", "tenant_id", tenant, "table", t.Name, "row", r.Key, "err", err)
					stuck++
					continue
				}
				all = append(all, postgres.Resealed{Key: r.Key, Column: i, Was: r.Values[i], Now: now})
			}
		}
		if len(all) > 0 {
			if err := h.DB.Reseal(ctx, tenant, t, all); err != nil {
				return done, stuck, err
			}
			fault.At("rows_resealed")
			done += len(all)
		}
		if len(rows) < batch {
			return done, stuck, nil
		}
		after = rows[len(rows)-1].Key
	}
}

func (h *Holder) anew(place secret.Place, values [][]byte) ([][]byte, error) {
	out := make([][]byte, len(values))
	for i, v := range values {
		plain, err := h.Keyset.Open(place, v)
		if err != nil {
			return nil, err
		}
		if out[i], err = h.Keyset.Seal(place, plain); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func wide(ids []uint32) []int64 {
	out := make([]int64, len(ids))
	for i, id := range ids {
		out[i] = int64(id)
	}
	return out
}

func idsOf(keys []secret.KeyInfo) (ids []uint32) {
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return ids
}
