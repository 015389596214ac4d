package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// What stores, legacy stores and the other resources of the ledger share.

// records is a page of our records and the cursor of the next one, nil on the
// last. f holds all filters but the merchants.
func records[F any](ctx context.Context, s *Server, c *ledger.Collection[F], operation string, merchants []uuid.UUID, f ledger.Filter,
	cursor *string, limit *oapi.Limit) ([]ledger.Resource[F], *string, error) {
	who := CallerFrom(ctx)
	f.Merchants = merchants
	scope := ListScope{Operation: operation, Tenant: who.TenantID, Filters: []string{"local", fmt.Sprint(merchants), f.Status, f.ClientReference,
		fmt.Sprint(f.Numbers), f.MapPoiID, formatTime(f.UpdatedAfter)}}
	page, err := s.page(scope, cursor, limit)
	if err != nil {
		return nil, nil, err
	}
	f.Before, f.Limit = page.Before, page.Limit+1
	rows, err := c.List(ctx, who.TenantID, f)
	if err != nil || len(rows) <= page.Limit {
		return rows, nil, err
	}
	rows = rows[:page.Limit]
	next, err := s.next(scope, rows[len(rows)-1].ID)
	return rows, next, err
}

// livePage is a page of one of WeChat's lists, the cursor of the next one, nil
// on the last, and how many WeChat says there are.
func livePage[T any](s *Server, m authorizer.Merchant, operation string, cursor *string, read func(offset int) ([]T, int, error), filters ...string) (rows []T, total int, next *string, _ error) {
	scope := ListScope{Operation: operation, Tenant: m.TenantID, Merchant: m.ID, Filters: append([]string{"live"}, filters...)}
	at, _, err := DecodeCursor[offset](s.cursors, scope, cursor)
	if err != nil {
		return nil, 0, nil, err
	}
	if rows, total, err = read(at.Offset); err != nil {
		return nil, 0, nil, err
	}
	if end := at.Offset + len(rows); len(rows) > 0 && end < total {
		c, err := EncodeCursor(s.cursors, scope, offset{end})
		return rows, total, &c, err
	}
	return rows, total, nil, nil
}

// given is a filter of a list, and whether the request has it.
type given struct {
	name string
	is   bool
}

// unfiltered refuses filters of a live list.
func unfiltered(ctx context.Context, filters ...given) error {
	var broken []problem.Field
	for _, f := range filters {
		if f.is {
			broken = append(broken, field(stateOf(ctx), f.name, ruleLiveFilter, ""))
		}
	}
	if broken == nil {
		return nil
	}
	slices.SortFunc(broken, func(a, b problem.Field) int { return strings.Compare(a.Pointer, b.Pointer) })
	return problem.Of(problem.CodeInvalidParameter).WithFields(broken...)
}

var wechatNumber = regexp.MustCompile(`^[0-9]{1,20}$`)

// byNumber reads a path segment that is WeChat's number of a resource; it
// repeats over merchants, so one must act.
func (s *Server) byNumber(ctx context.Context, segment string, header *string) (m authorizer.Merchant, ok bool, err error) {
	if !wechatNumber.MatchString(segment) {
		return m, false, nil
	}
	m, err = s.acting(ctx, header)
	return m, true, err
}

// toShow finds what GET of one resource shows: our record and, if it is to be
// live, the number to ask WeChat for. WeChat may know one that we don't yet:
// ours is nil then.
func toShow[F any](ctx context.Context, s *Server, c *ledger.Collection[F], segment string, merchant *string, live bool) (
	ours *ledger.Resource[F], m authorizer.Merchant, number string, err error) {
	if live {
		if m, ok, err := s.byNumber(ctx, segment, merchant); ok || err != nil {
			return nil, m, segment, err
		}
	}
	r, m, err := recordOf(ctx, s, c, segment, merchant)
	if live {
		number = deref(r.WechatID)
	}
	return &r, m, number, err
}

// deletion is what DELETE does for every resource, by the ledger's way to
// delete one.
func deletion[F any](ctx context.Context, s *Server, c *ledger.Collection[F], call *wechat.Endpoint,
	remove func(context.Context, ledger.Request, uuid.UUID, *int64) (ledger.Resource[F], ledger.Done, error),
	operation, segment string, merchant, key, ifMatch *string) (was ledger.Resource[F], done ledger.Done, err error) {
	found, m, err := recordOf(ctx, s, c, segment, merchant)
	if err != nil {
		return was, done, err
	}
	if err := s.Authorizer.Check(m, call); err != nil {
		return was, done, err
	}
	version, err := IfMatch(ifMatch)
	if err != nil {
		return was, done, err
	}
	r, err := request(ctx, m, key, operation, found.ID)
	if err != nil {
		return was, done, err
	}
	return remove(ctx, r, found.ID, version)
}

// recordOf finds our record by a path segment, which is our id or WeChat's
// number, and its merchant, for a caller who may see both.
func recordOf[F any](ctx context.Context, s *Server, c *ledger.Collection[F], segment string, header *string) (r ledger.Resource[F], m authorizer.Merchant, err error) {
	who := CallerFrom(ctx)
	m, ok, err := s.byNumber(ctx, segment, header)
	if err != nil {
		return r, m, err
	}
	if ok {
		id, err := c.ByNumber(ctx, m, segment)
		if err != nil {
			return r, m, err
		}
		r, err = c.Get(ctx, m.TenantID, id)
		return r, m, err
	}
	id, err := typeid.Parse(c.Prefix, segment)
	if err != nil {
		return r, m, problem.Of(problem.CodeNotFound).WithErr(err)
	}
	m, given, err := s.actingIfGiven(ctx, header)
	if err != nil {
		return r, m, err
	}
	r, err = c.Get(ctx, who.TenantID, id)
	switch {
	case err != nil:
		return r, m, err
	case given && header != nil && m.ID != r.MerchantID:
		return r, m, problem.Of(problem.CodeNotFound)
	case !who.MayActFor(r.MerchantID):
		return r, m, problem.Of(problem.CodeMerchantNotAllowed)
	}
	m, err = s.Authorizer.MerchantByID(ctx, who.TenantID, r.MerchantID)
	if err == nil {
		NoteMerchant(ctx, typeid.Format(typeid.Merchant, m.ID))
	}
	return r, m, err
}

// recordETag is the version of a record as callers see it: its audit and its open
// write are a part of it.
func recordETag[F any](r ledger.Resource[F]) *string {
	b, err := json.Marshal(struct {
		Fields    json.RawMessage
		Status    string
		Audit     *ledger.AuditBrief
		Operation *oapi.OperationSummary
	}{r.Fields, r.Status, r.Audit, openOperation(r.Operation)})
	if err != nil {
		b = nil // the version alone still tells
	}
	return new(ETag(r.RowVersion, b))
}

// open reports whether an operation's end isn't known yet, which is when a
// resource shows it.
func open(state string) bool {
	return state == "pending" || state == "executing" || state == "reconciling" || state == "needs_attention"
}

// openOperation shows a write that is open; nil otherwise.
func openOperation(op *dbsqlc.Operation) *oapi.OperationSummary {
	if op == nil || !open(op.State) {
		return nil
	}
	return operationSummary(*op)
}

// statusLink is where it is seen how a write goes on.
func statusLink(op *oapi.OperationSummary, audit *oapi.AuditSummary) *string {
	switch {
	case op != nil:
		return new("</v1/operations/" + op.ID + `>; rel="status"`)
	case audit != nil:
		return new("</v1/audits/" + audit.ID + `>; rel="status"`)
	}
	return nil
}

// reviewed reports whether a write is followed by a review, or its end isn't
// known: then the answer is 202.
func reviewed[F any](r ledger.Resource[F], done ledger.Done) bool {
	return done.Operation.State != "succeeded" || r.Audit != nil && r.Audit.OperationID != nil && *r.Audit.OperationID == done.Operation.ID
}

func operationID(d ledger.Done) *string {
	return new(typeid.Format(typeid.Operation, d.Operation.ID))
}

// oneOf is a filter by one value, or none.
func oneOf(v *string) []string {
	if v == nil {
		return nil
	}
	return []string{*v}
}
