package ledger

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/wechat"
)

// The members that hold ids, by name in small letters and without "_": WeChat
// writes goodsId, goods_id and goodsid.
var (
	auditIDs = map[string][]string{"auditid": {AuditID}}
	goodsIDs = map[string][]string{"auditid": {AuditID}, "goodsid": {GoodsID}}
)

// idsNamed is Kind.IDs for replies whose members of these names hold ids of
// these types. It doesn't read them as JSON: no read tells an audit's id again,
// so that it is taken from a reply too that was cut short or is broken
// elsewhere, as far as its digits are there whole.
func idsNamed(types map[string][]string) func(wechat.Reply) []ID {
	return func(r wechat.Reply) []ID {
		var ids []ID
		for _, m := range member.FindAllSubmatch(r.Body, -1) {
			name := strings.ToLower(strings.ReplaceAll(string(m[1]), "_", ""))
			for _, typ := range types[name] {
				id := ID{typ, string(m[2]) + string(m[3])}
				if !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
		}
		return ids
	}
}

var (
	// member is a name and the digits of its value: in quotes, or up to what ends
	// a number.
	member = regexp.MustCompile(`"([A-Za-z_]{1,32}) *"\s*:\s*(?:"\s*([1-9][0-9]{0,19})\s*"|([1-9][0-9]{0,19})[\s,}\]])`)
	anID   = regexp.MustCompile(`^[1-9][0-9]{0,19}$`)
)

// withTold adds to the ids that a look has found those of other types that an
// answer to op told, although it proved nothing: the newest answer's first.
func (l *Ledger) withTold(ctx context.Context, op *Operation, ids []ID) ([]ID, error) {
	if op.Kind.IDs == nil {
		return ids, nil
	}
	var attempts []dbsqlc.OperationAttempt
	b := l.DB.NewBatch(op.TenantID)
	postgres.QueueMany(b, dbsqlc.OperationAttempts, dbsqlc.OperationAttemptsParams{TenantID: op.TenantID, OperationIds: []uuid.UUID{op.ID}}, &attempts)
	if err := l.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	for _, a := range slices.Backward(attempts) {
		if len(a.ResponseCt) == 0 {
			continue
		}
		body, err := l.Keyset.Open(responsePlace(op), a.ResponseCt)
		if err != nil {
			return nil, err
		}
		for _, id := range op.Kind.IDs(wechat.Reply{Body: body}) {
			if !slices.ContainsFunc(ids, func(known ID) bool { return known.Type == id.Type }) {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

func responsePlace(op *Operation) secret.Place {
	return secret.Place{Table: "operation_attempts", Column: "response_ct", Tenant: op.TenantID, Row: op.ID.String()}
}
