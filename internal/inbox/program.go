package inbox

import (
	"context"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// programAudit applies the decision on a Store Mini Program (document 000
// §4.2), and then reads how the merchant's program stands.
func (in *Inbox) programAudit(ctx context.Context, m authorizer.Merchant, row dbsqlc.EventInbox, msg msgcrypt.Message) error {
	news := ledger.News{Kind: "store_program", Source: ledger.FromEvent, AuditID: msg.Get("audit_id"), Number: msg.Get("audit_id"),
		Reason: msg.Get("reason"), InboxID: row.ID, At: time.Unix(row.CreateTime, 0)}
	if !digits(news.AuditID) {
		return notOurs("audit_id is no number")
	}
	var ok bool
	if news.Status, ok = ledger.EventStatus(row.Event, msg.Get("status")); !ok {
		return notOurs("status %q", msg.Get("status"))
	}
	if _, err := in.Ledger.ApplyNews(ctx, m, news); err != nil {
		return err
	}
	return in.Ledger.RefreshStoreProgram(ctx, m)
}
