package inbox

import (
	"context"
	"strconv"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/wechat"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// mapPOIAudit applies Tencent's decision on a proposed place (document 000
// §4.7). Its status means the opposite of every other event's, and its audit_id
// is the base_id of the answer to create_map_poi.
func (in *Inbox) mapPOIAudit(ctx context.Context, m authorizer.Merchant, row dbsqlc.EventInbox, msg msgcrypt.Message) error {
	news := ledger.News{Kind: "map_poi", Source: ledger.FromEvent, AuditID: msg.Get("audit_id"), Number: msg.Get("audit_id"), MapPoiID: msg.Get("map_poi_id"),
		InboxID: row.ID, At: time.Unix(row.CreateTime, 0)}
	if !digits(news.AuditID) {
		return notOurs("audit_id is no number")
	}
	told := ledger.MapPOIFields{
		Remark:  optional(msg.Get("sh_remark")),
		Decided: &ledger.MapPOIShown{Name: msg.Get("name"), Address: msg.Get("address")},
	}
	if lat, lng := msg.Get("latitude"), msg.Get("longitude"); lat != "" && lng != "" {
		told.Decided.Location = &ledger.Location{Latitude: lat, Longitude: lng}
	}
	news.Changed = told
	switch msg.Get("status") {
	case strconv.Itoa(wechat.MapPOIEventApproved):
		if news.MapPoiID == "" {
			return notOurs("approved without a map_poi_id")
		}
		news.Status = ledger.Approved
	case strconv.Itoa(wechat.MapPOIEventFailed):
		news.Status, news.Reason = ledger.Rejected, msg.Get("sh_remark")
	default:
		return notOurs("status %q", msg.Get("status"))
	}
	_, err := in.Ledger.ApplyNews(ctx, m, news)
	return err
}

// optional is nil for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
