package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
)

// A Process is one that serves or has served, and may again.
type Process struct {
	Instance   string    `json:"instance"` // its spool directory's name
	Serving    bool      `json:"serving"`
	SealsWith  uint32    `json:"seals_with"`
	Keys       []uint32  `json:"keys"`
	SpoolKeys  []uint32  `json:"spool_keys"`
	SealsSince time.Time `json:"seals_since"`
	SeenAt     time.Time `json:"seen_at"`

	sealingFor time.Duration // by the database's clock
}

func (p Process) has(id uint32) bool { return slices.Contains(p.Keys, id) }

func holders(ctx context.Context, db *postgres.DB) (out []Process, err error) {
	err = db.InSystem(ctx, func(tx postgres.DBTX) error {
		rows, err := dbsqlc.New().HolderList(ctx, tx)
		out = make([]Process, len(rows))
		for i, r := range rows {
			out[i] = Process{r.Instance, r.Serving, uint32(r.SealsWith), narrow(r.KeyIds), narrow(r.SpoolKeyIds), r.SealsSince.UTC(), r.SeenAt.UTC(), r.SealingFor}
		}
		return err
	})
	return out, err
}

func narrow(ids []int64) []uint32 {
	out := make([]uint32, len(ids))
	for i, id := range ids {
		out[i] = uint32(id)
	}
	return out
}

// Steps are what a person does for a rotation, in this order: Rotate, and when
// Status says that nothing lies sealed with the old key, Retire.
type Steps struct {
	DB   *postgres.DB
	Path string // of the keyset's file
	Who  tenant.Caller
	// CursorLife is how long a caller may come back with what an old key sealed.
	CursorLife time.Duration
}

// A Key is a key of the file and what lies sealed with it.
type Key struct {
	ID     uint32      `json:"id"`
	Role   secret.Role `json:"role"` // "": not in the file
	Values int64       `json:"values"`
	In     []Values    `json:"in"`
}

// Values counts what lies in one column.
type Values struct {
	Column string `json:"column"` // with its table
	N      int64  `json:"values"`
}

// Status is how far a rotation is.
type Status struct {
	Keys      []Key     `json:"keys"`
	Processes []Process `json:"processes"`
}

// Status counts every sealed value.
func (s Steps) Status(ctx context.Context) (st Status, err error) {
	k, err := secret.OpenKeyset(s.Path)
	if err != nil {
		return st, err
	}
	for _, i := range k.Keys() {
		st.Keys = append(st.Keys, Key{ID: i.ID, Role: i.Role, In: []Values{}})
	}
	if st.Processes, err = holders(ctx, s.DB); err != nil {
		return st, err
	}
	counts, err := s.DB.SealedValues(ctx)
	if err != nil {
		return st, err
	}
	for _, c := range counts {
		i := slices.IndexFunc(st.Keys, func(k Key) bool { return k.ID == c.KeyID })
		if i < 0 {
			i = len(st.Keys)
			st.Keys = append(st.Keys, Key{ID: c.KeyID})
		}
		st.Keys[i].Values += c.N
		st.Keys[i].In = append(st.Keys[i].In, Values{c.Table + "." + c.Column, c.N})
	}
	return st, nil
}

// Rotate adds a key to the file, unless one is next already, waits until every
// serving process holds it, lets it seal, and waits until every one does. It
// waits patience for each; when that is over nothing is broken, and the next
// call goes on. say is told each step. What is about to be done to the file
// stands in the change log before, so that nothing is done in silence.
func (s Steps) Rotate(ctx context.Context, patience time.Duration, say func(format string, args ...any)) error {
	k, err := secret.OpenKeyset(s.Path)
	if err != nil {
		return err
	}
	was := k.SealsWith()
	if old := secret.WithRole(k.Keys(), secret.RoleOld); len(old) > 0 {
		late, err := s.late(ctx, sealingWith(was))
		if err != nil {
			return err
		}
		if len(late) == 0 {
			return fmt.Errorf("key %d is still there from the rotation before: see gateway keyset status, and end that with gateway keyset retire %d", old[0], old[0])
		}
		return s.everySeals(ctx, patience, was, say) // that one goes on
	}
	var id uint32
	if next := secret.WithRole(k.Keys(), secret.RoleNext); len(next) > 0 {
		id = next[0]
	} else if id, err = secret.AddKey(s.Path, func(id uint32) error { return s.record(ctx, "keyset.add_key", id, nil) }); err != nil {
		return err
	}
	serving, err := s.late(ctx, func(Process) bool { return false })
	if err != nil {
		return err
	}
	say("key %d is in %s; it opens and doesn't seal yet; processes that serve: %d", id, s.Path, len(serving))
	fault.At("key_added")
	late, err := s.wait(ctx, patience, func(p Process) bool { return p.has(id) })
	if err != nil {
		return err
	}
	if len(late) > 0 {
		return fmt.Errorf("key %d isn't known yet to process %s: bring %s there, and run this again", id, strings.Join(late, ", "), s.Path)
	}
	if err := s.record(ctx, "keyset.promote_key", id, map[string]uint32{"sealed": was}); err != nil {
		return err
	}
	if err := secret.Promote(s.Path, id); err != nil {
		return err
	}
	say("key %d seals, key %d only opens", id, was)
	fault.At("key_promoted")
	return s.everySeals(ctx, patience, id, say)
}

func (s Steps) everySeals(ctx context.Context, patience time.Duration, id uint32, say func(format string, args ...any)) error {
	late, err := s.wait(ctx, patience, sealingWith(id))
	if err != nil {
		return err
	}
	if len(late) > 0 {
		return fmt.Errorf("key %d seals, but not yet in process %s: bring %s there, and run this again", id, strings.Join(late, ", "), s.Path)
	}
	say("every serving process seals with key %d", id)
	return nil
}

func sealingWith(id uint32) func(Process) bool {
	return func(p Process) bool { return p.SealsWith == id }
}

// wait returns which serving processes are not ready when patience is over.
func (s Steps) wait(ctx context.Context, patience time.Duration, ready func(Process) bool) (late []string, err error) {
	over := time.After(patience)
	for {
		if late, err = s.late(ctx, ready); err != nil || len(late) == 0 {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return late, ctx.Err()
		case <-over:
			return late, nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// late are the serving processes that are not ready.
func (s Steps) late(ctx context.Context, ready func(Process) bool) (late []string, err error) {
	all, err := holders(ctx, s.DB)
	for _, p := range all {
		if p.Serving && !ready(p) {
			late = append(late, p.Instance)
		}
	}
	return late, err
}

// ErrNeeded is returned by Retire while something needs the key.
var ErrNeeded = errors.New("the key is still needed")

// Retire takes a key out of the file, and returns where the file with it is
// kept. Errors: ErrNeeded, with all that needs the key.
func (s Steps) Retire(ctx context.Context, id uint32) (kept string, err error) {
	st, err := s.Status(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(st.Keys, func(k Key) bool { return k.ID == id && k.Role != "" })
	if i < 0 {
		return "", fmt.Errorf("%s has no key %d", s.Path, id)
	}
	needs := s.needs(st, st.Keys[i])
	if len(needs) == 0 { // somebody may have begun while all was counted
		if st.Processes, err = holders(ctx, s.DB); err != nil {
			return "", err
		}
		needs = s.needs(st, st.Keys[i])
	}
	if len(needs) > 0 {
		return "", fmt.Errorf("key %d: %w:\n  %s", id, ErrNeeded, strings.Join(needs, "\n  "))
	}
	if err := s.record(ctx, "keyset.remove_key", id, nil); err != nil {
		return "", err
	}
	return secret.RemoveKey(s.Path, id)
}

func (s Steps) needs(st Status, k Key) (needs []string) {
	if k.Role == secret.RoleSeals {
		return []string{"it is the one that seals: gateway keyset rotate first"}
	}
	seals := st.Keys[slices.IndexFunc(st.Keys, func(k Key) bool { return k.Role == secret.RoleSeals })].ID
	for _, p := range st.Processes {
		seen := "which serves"
		if !p.Serving {
			seen = fmt.Sprintf("last seen %s: start one on its spool; only if that is gone for good: gateway keyset forget %s", p.SeenAt.Format(time.RFC3339), p.Instance)
		}
		switch {
		case p.SealsWith != seals:
			needs = append(needs, fmt.Sprintf("process %s seals with key %d, %s", p.Instance, p.SealsWith, seen))
		case slices.Contains(p.SpoolKeys, k.ID):
			needs = append(needs, fmt.Sprintf("the spool of process %s holds records, %s", p.Instance, seen))
		case k.Role == secret.RoleOld && p.sealingFor < s.CursorLife:
			needs = append(needs, fmt.Sprintf("cursors of lists that process %s made are good until %s", p.Instance, p.SealsSince.Add(s.CursorLife).Format(time.RFC3339)))
		}
	}
	for _, v := range k.In {
		needs = append(needs, fmt.Sprintf("%d values in %s, which a serving process seals anew; what it can't open stands in its log", v.N, v.Column))
	}
	return needs
}

// Forget strikes a process whose spool is gone for good off the list. One that
// serves is refused.
func (s Steps) Forget(ctx context.Context, instance string) error {
	return s.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		n, err := dbsqlc.New().HolderForget(ctx, tx, dbsqlc.HolderForgetParams{Instance: instance})
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("process %s serves, or there is none: gateway keyset status", instance)
		}
		return tenant.RecordChange(ctx, tx, s.Who, nil, "keyset.forget_process", instance, nil, nil)
	})
}

func (s Steps) record(ctx context.Context, action string, id uint32, before any) error {
	return s.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		return tenant.RecordChange(ctx, tx, s.Who, nil, action, fmt.Sprint(id), before, nil)
	})
}
