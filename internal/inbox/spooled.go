package inbox

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/spool"
)

// A spooledPush is what lies in the spool of a push: its payload as WeChat sent
// it, since the whole is sealed there, and anew when the keyset is rotated.
type spooledPush struct {
	dbsqlc.EventInboxInsertParams
	Payload []byte // nil in what was written before it was there: see PayloadCt
}

// maxSpooled bounds the pushes that wait for the database in this process.
// WeChat pushes the others again, and what it gives up the polls find.
const maxSpooled = 10_000

// spool writes down a push that the database could not be told of, with its
// payload as it came. WeChat is told that it wasn't kept, and pushes it three
// times more; an outage may last longer.
func (in *Inbox) spool(row dbsqlc.EventInboxInsertParams, payload []byte) {
	in.mu.Lock()
	_, known := in.spooled[says(row)]
	full := len(in.spooled) >= maxSpooled
	in.mu.Unlock()
	if known || full {
		return
	}
	row.PayloadCt = nil
	body, err := json.Marshal(spooledPush{row, payload})
	r := spool.Record{Tenant: row.TenantID, Operation: row.ID, Body: body, At: time.Now().UTC(), Push: true}
	if err == nil {
		err = in.Spool.Append(r)
	}
	if err != nil {
		in.Log.Error("a push could not be spooled", "tenant_id", row.TenantID, "appid", row.Appid, "event", row.Event, "err", err)
		return
	}
	in.hold(row, r)
}

func (in *Inbox) hold(row dbsqlc.EventInboxInsertParams, r spool.Record) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.spooled[says(row)] = r
}

// says is equal for a push and its repetitions, as event_inbox_once has it: the
// rest of what that compares is part of the text.
func says(row dbsqlc.EventInboxInsertParams) string {
	return row.TenantID.String() + " " + row.Appid + " " + string(row.PayloadSha256)
}

// Left takes over a push that an earlier process on the spool directory left.
func (in *Inbox) Left(r spool.Record) {
	var row dbsqlc.EventInboxInsertParams
	if err := json.Unmarshal(r.Body, &row); err != nil {
		in.Log.Error("spooled push can't be read", "tenant_id", r.Tenant, "err", err)
		return
	}
	in.hold(row, r)
}

// KeepSpooled tells the database of the pushes that it could not be told of
// when they came. It is to be called every second.
func (in *Inbox) KeepSpooled(ctx context.Context) error {
	in.mu.Lock()
	waiting := maps.Clone(in.spooled)
	in.mu.Unlock()
	for key, r := range waiting {
		var push spooledPush
		err := json.Unmarshal(r.Body, &push)
		if err == nil && push.Payload != nil {
			push.PayloadCt, err = in.Keyset.Seal(payloadPlace(push.TenantID, push.ID), push.Payload)
		}
		if err == nil {
			b := in.DB.NewBatch(push.TenantID)
			b.Queue(dbsqlc.EventInboxInsert, push.EventInboxInsertParams)
			err = in.DB.Run(ctx, b)
		}
		switch {
		case postgres.Unavailable(err):
			return err
		case err != nil:
			// It stays in the spool: one push must not keep all others waiting.
			in.Log.ErrorContext(ctx, "spooled push not kept", "tenant_id", r.Tenant, "err", err)
		default:
			if err := in.Spool.Done(r); err != nil {
				in.Log.WarnContext(ctx, "spool", "err", err)
			}
		}
		in.mu.Lock()
		delete(in.spooled, key)
		in.mu.Unlock()
	}
	return nil
}
