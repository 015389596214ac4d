package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/typeid"
)

// A Change is a line of change_log: what a person or a key changed. Secrets
// stand in it as fingerprints.
type Change struct {
	ID       uuid.UUID
	At       time.Time
	TenantID *uuid.UUID // nil: a change of the installation itself
	Actor    string     // key_…, cli, gateway
	Action   string     // tenant.create, api_key.revoke, …
	Subject  string     // the id of what was changed
	Before   json.RawMessage
	After    json.RawMessage
}

// SubjectType is the kind of thing that was changed: what Action says before its dot.
func (c Change) SubjectType() string {
	kind, _, _ := strings.Cut(c.Action, ".")
	return kind
}

var errNoActor = errors.New("record a change: nobody is named as its actor")

// RecordChange writes a line of change_log in the transaction of the change
// itself: no line, no change. before and after are marshalled and must hold no
// secret; nil where there is none. The action starts with the kind of its
// subject and a dot.
func RecordChange(ctx context.Context, tx postgres.DBTX, who Caller, tenant *uuid.UUID, action, subject string, before, after any) error {
	line, err := ChangeLine(who, tenant, action, subject, before, after)
	if err != nil {
		return err
	}
	return dbsqlc.New().ChangeInsert(ctx, tx, line)
}

// ChangeLine is what RecordChange writes, for changes that are a batch.
func ChangeLine(who Caller, tenant *uuid.UUID, action, subject string, before, after any) (line dbsqlc.ChangeInsertParams, err error) {
	if who.Actor == "" {
		return line, errNoActor
	}
	line = dbsqlc.ChangeInsertParams{ID: typeid.New(), OfTenant: tenant, Actor: who.Actor, Action: action, Subject: subject}
	if line.Before, err = marshal(before); err != nil {
		return line, err
	}
	line.After, err = marshal(after)
	return line, err
}

func marshal(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

// A ChangeFilter narrows ListChanges. Zero members don't.
type ChangeFilter struct {
	TenantID *uuid.UUID
	Actor    string
	Action   string
}

// ListChanges returns a page of change_log over all tenants, for operators.
func (t *Tenants) ListChanges(ctx context.Context, f ChangeFilter, p Page) (_ []Change, more bool, err error) {
	defer wrap(&err, "tenant.ListChanges")
	var rows []dbsqlc.ChangeLog
	err = t.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		rows, err = t.q.ChangeList(ctx, tx, dbsqlc.ChangeListParams{
			OfTenant: f.TenantID, Actor: orNil(f.Actor), Action: orNil(f.Action), EarlierThan: p.Before, N: int32(p.Limit) + 1,
		})
		return err
	})
	if err != nil {
		return nil, false, err
	}
	rows, more = cut(rows, p.Limit)
	out := make([]Change, len(rows))
	for i, r := range rows {
		out[i] = Change{r.ID, r.At.UTC(), r.TenantID, r.Actor, r.Action, r.Subject, r.Before, r.After}
	}
	return out, more, nil
}
