package handlers

import (
	"context"
	"fmt"
	"strconv"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/migration"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// ListStoreMigrations implements GET /v1/store-migrations.
func (s *Server) ListStoreMigrations(ctx context.Context, req oapi.ListStoreMigrationsRequestObject) (oapi.ListStoreMigrationsResponseObject, error) {
	p, who := req.Params, CallerFrom(ctx)
	merchants, _, err := s.reach(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	scope := ListScope{Operation: "listStoreMigrations", Tenant: who.TenantID, Filters: []string{fmt.Sprint(merchants), deref(p.Status)}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	rows, err := s.Migrations.List(ctx, who.TenantID, migration.Filter{Merchants: merchants, Status: (*string)(p.Status), Before: page.Before, Limit: page.Limit + 1})
	if err != nil {
		return nil, err
	}
	out := oapi.StoreMigrationList{Data: []oapi.StoreMigration{}, HasMore: len(rows) > page.Limit}
	if out.HasMore {
		rows = rows[:page.Limit]
		if out.NextCursor, err = s.next(scope, rows[len(rows)-1].ID); err != nil {
			return nil, err
		}
	}
	for _, m := range rows {
		out.Data = append(out.Data, migrationToAPI(ctx, m))
	}
	return oapi.ListStoreMigrations200JSONResponse{Body: out, Headers: oapi.ListStoreMigrations200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// CreateStoreMigration implements POST /v1/store-migrations.
func (s *Server) CreateStoreMigration(ctx context.Context, req oapi.CreateStoreMigrationRequestObject) (oapi.CreateStoreMigrationResponseObject, error) {
	m, err := s.acting(ctx, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	n := migration.Begin{Run: b.Mode == oapi.StoreMigrationModeRun, DeleteBarred: deref(b.OnNotAllowed) == "delete", Concurrency: 1, Items: map[string]migration.Wish{}}
	if b.Concurrency != nil {
		n.Concurrency = int(*b.Concurrency)
	}
	var broken []problem.Field
	if d := b.Defaults; d != nil {
		n.Defaults = migration.Details{CredentialNumber: deref(d.CredentialNumber), CompanyName: deref(d.CompanyName), CardID: deref(d.CardID), QualificationMediaIDs: valueOf(d.QualificationMediaIds)}
		broken = append(broken, companyFields(ctx, "/defaults", d.CompanyName, d.QualificationMediaIds)...)
	}
	if b.Items != nil {
		for i, it := range *b.Items {
			at := "/items/" + strconv.Itoa(i)
			if _, twice := n.Items[it.LegacyPoiID]; twice {
				broken = append(broken, field(stateOf(ctx), at+"/legacy_poi_id", ruleRepeated, ""))
			}
			broken = append(broken, companyFields(ctx, at, it.CompanyName, it.QualificationMediaIds)...)
			n.Items[it.LegacyPoiID] = migration.Wish{Action: migration.Action(deref(it.Action)), Details: migration.Details{
				MapPoiID: deref(it.MapPoiID), CredentialNumber: deref(it.CredentialNumber), CompanyName: deref(it.CompanyName), CardID: deref(it.CardID),
				QualificationMediaIDs: valueOf(it.QualificationMediaIds), Photos: valueOf(it.Photos), ContactPhone: deref(it.ContactPhone), BusinessHours: hoursOf(ctx, it.BusinessHours)}}
		}
	}
	if len(broken) > 0 {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(broken...)
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "createStoreMigration", b)
	if err != nil {
		return nil, err
	}
	made, again, err := s.Migrations.Create(ctx, r, n)
	if err != nil {
		return nil, err
	}
	body := migrationToAPI(ctx, made)
	etag, err := etagOf(made.UpdatedAt, body)
	return oapi.CreateStoreMigration202JSONResponse{Body: body, Headers: oapi.CreateStoreMigration202ResponseHeaders{
		ETag: &etag, IdempotencyReplayed: replayed(again), Location: new("/v1/store-migrations/" + body.ID)}}, err
}

// companyFields: another company's documents are needed (document 000 §4.8).
func companyFields(ctx context.Context, at string, company *string, documents *[]string) []problem.Field {
	if company == nil || documents != nil && len(*documents) > 0 {
		return nil
	}
	return []problem.Field{field(stateOf(ctx), at+"/qualification_media_ids", ruleOfCompany, "")}
}

func hoursOf(ctx context.Context, h *oapi.BusinessHours) string {
	if h == nil {
		return ""
	}
	return hours(ctx, *h)
}

// migrationOf finds a migration for a caller who may see it. Errors: not_found,
// merchant_not_allowed.
func (s *Server) migrationOf(ctx context.Context, segment string) (migration.Migration, error) {
	who := CallerFrom(ctx)
	id, err := pathID(typeid.StoreMigration, segment)
	if err != nil {
		return migration.Migration{}, err
	}
	m, err := s.Migrations.Get(ctx, who.TenantID, id)
	switch {
	case err != nil:
		return m, err
	case !who.MayActFor(m.MerchantID):
		return m, problem.Of(problem.CodeMerchantNotAllowed)
	}
	NoteMerchant(ctx, typeid.Format(typeid.Merchant, m.MerchantID))
	return m, nil
}

// GetStoreMigration implements GET /v1/store-migrations/{id}.
func (s *Server) GetStoreMigration(ctx context.Context, req oapi.GetStoreMigrationRequestObject) (oapi.GetStoreMigrationResponseObject, error) {
	m, err := s.migrationOf(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	body := migrationToAPI(ctx, m)
	etag, err := etagOf(m.UpdatedAt, body)
	if err != nil {
		return nil, err
	}
	if NotModified(req.Params.IfNoneMatch, etag) {
		return oapi.GetStoreMigration304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: &etag}}, nil
	}
	return oapi.GetStoreMigration200JSONResponse{Body: body, Headers: oapi.GetStoreMigration200ResponseHeaders{ETag: &etag}}, nil
}

// UpdateStoreMigration implements PATCH /v1/store-migrations/{id}.
func (s *Server) UpdateStoreMigration(ctx context.Context, req oapi.UpdateStoreMigrationRequestObject) (oapi.UpdateStoreMigrationResponseObject, error) {
	m, err := s.migrationOf(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	if m, err = s.Migrations.Steer(ctx, CallerFrom(ctx), m.ID, migration.Desired(req.Body.DesiredState), validateOnly(ctx)); err != nil {
		return nil, err
	}
	body := migrationToAPI(ctx, m)
	etag, err := etagOf(m.UpdatedAt, body)
	return oapi.UpdateStoreMigration200JSONResponse{Body: body, Headers: oapi.UpdateStoreMigration200ResponseHeaders{ETag: &etag}}, err
}

// after is where the next page of items begins.
type after struct {
	Number string `json:"n"`
}

// ListStoreMigrationItems implements GET /v1/store-migrations/{id}/items.
func (s *Server) ListStoreMigrationItems(ctx context.Context, req oapi.ListStoreMigrationItemsRequestObject) (oapi.ListStoreMigrationItemsResponseObject, error) {
	m, err := s.migrationOf(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	p := req.Params
	scope := ListScope{Operation: "listStoreMigrationItems", Tenant: m.TenantID, Merchant: m.MerchantID, Filters: []string{m.ID.String(), deref(p.Status)}}
	at, ok, err := DecodeCursor[after](s.cursors, scope, p.Cursor)
	if err != nil {
		return nil, err
	}
	var from *string
	if ok {
		from = &at.Number
	}
	n := limitOf(p.Limit)
	rows, err := s.Migrations.Items(ctx, m.TenantID, m.ID, (*string)(p.Status), from, n+1)
	if err != nil {
		return nil, err
	}
	out := oapi.StoreMigrationItemList{Data: []oapi.StoreMigrationItem{}, HasMore: len(rows) > n}
	if out.HasMore {
		rows = rows[:n]
		next, err := EncodeCursor(s.cursors, scope, after{rows[n-1].PoiID})
		if err != nil {
			return nil, err
		}
		out.NextCursor = &next
	}
	for _, row := range rows {
		it, err := migrationItemToAPI(ctx, m, row)
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, it)
	}
	return oapi.ListStoreMigrationItems200JSONResponse{Body: out, Headers: oapi.ListStoreMigrationItems200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// UpdateStoreMigrationItem implements PATCH /v1/store-migrations/{id}/items/{legacy_poi_id}.
func (s *Server) UpdateStoreMigrationItem(ctx context.Context, req oapi.UpdateStoreMigrationItemRequestObject) (oapi.UpdateStoreMigrationItemResponseObject, error) {
	m, err := s.migrationOf(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	if broken := companyFields(ctx, "", b.CompanyName, b.QualificationMediaIds); broken != nil {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(broken...)
	}
	c := migration.Change{Action: (*migration.Action)(b.Action), Details: migration.Details{
		MapPoiID: deref(b.MapPoiID), CredentialNumber: deref(b.CredentialNumber), CompanyName: deref(b.CompanyName), CardID: deref(b.CardID),
		QualificationMediaIDs: valueOf(b.QualificationMediaIds), Photos: valueOf(b.Photos), ContactPhone: deref(b.ContactPhone), BusinessHours: hoursOf(ctx, b.BusinessHours)}}
	row, err := s.Migrations.ChangeItem(ctx, CallerFrom(ctx), m.ID, req.LegacyPoiID, c, validateOnly(ctx))
	if err != nil {
		return nil, err
	}
	body, err := migrationItemToAPI(ctx, m, row)
	return oapi.UpdateStoreMigrationItem200JSONResponse{Body: body}, err
}

func migrationToAPI(ctx context.Context, m migration.Migration) oapi.StoreMigration {
	c := m.Counts.Shown()
	n := func(of string) int32 { return int32(c[of]) }
	out := oapi.StoreMigration{
		ID: typeid.Format(typeid.StoreMigration, m.ID), MerchantID: typeid.Format(typeid.Merchant, m.MerchantID), Status: oapi.StoreMigrationStatus(m.Status),
		Phase: oapi.StoreMigrationPhase(m.Phase()), DesiredState: m.Desired, OnNotAllowed: m.OnNotAllowed, Concurrency: m.Concurrency,
		Counts: oapi.StoreMigrationCounts{Total: n("total"), Pending: n("pending"), Submitting: n("submitting"), InReview: n("in_review"), Migrated: n("migrated"),
			Failed: n("failed"), Blocked: n("blocked"), Deleted: n("deleted"), Skipped: n("skipped")},
		Eta: utc(m.ETA()), NextCheckAt: utc(m.NextCheckAt), ListedAt: utc(m.ListedAt), CreatedAt: m.CreatedAt.UTC(), UpdatedAt: m.UpdatedAt.UTC(), FinishedAt: utc(m.FinishedAt),
	}
	if m.Listed() {
		out.Percent = new(int32(m.Counts.Percent()))
	}
	if p := migration.Problem(m.Error); p != nil {
		out.Error = errorToAPI(ctx, p)
	}
	return out
}

func migrationItemToAPI(ctx context.Context, m migration.Migration, row dbsqlc.StoreMigrationItem) (oapi.StoreMigrationItem, error) {
	it, d, deletes, err := m.View(row)
	out := oapi.StoreMigrationItem{
		LegacyPoiID: row.PoiID, LegacyStoreID: idPointer(typeid.LegacyStore, row.LegacyStoreID), Name: row.Name, Status: oapi.StoreMigrationItemStatus(row.Status),
		BlockedBy: []oapi.StoreMigrationBlock{}, Action: row.Action, Deletes: deletes, MapPoiID: optional(&d.MapPoiID), CredentialNumber: optional(&d.CredentialNumber),
		CompanyName: optional(&d.CompanyName), QualificationMediaIds: orEmpty(d.QualificationMediaIDs), CardID: optional(&d.CardID),
		Photos: orEmpty(d.Photos), ContactPhone: optional(&d.ContactPhone), BusinessHours: hoursToAPI(d.BusinessHours), Attempt: row.Attempt,
		StoreID: idPointer(typeid.Store, row.StoreID), OperationID: idPointer(typeid.Operation, row.OperationID), AuditID: idPointer(typeid.Audit, row.AuditID),
		SubmittedAt: utc(row.SubmittedAt), UpdatedAt: row.UpdatedAt.UTC(),
	}
	for _, b := range it.BlockedBy {
		out.BlockedBy = append(out.BlockedBy, oapi.StoreMigrationBlock(b))
	}
	if u := it.Shown; u.List != "" && u.Upgrade >= 0 && u.Upgrade < len(upgradeStatuses) {
		out.Upgrade = &oapi.LegacyUpgrade{Status: upgradeStatuses[u.Upgrade], Comment: optional(&u.Comment), MapPoiID: optional(&u.MapPoiID)}
	}
	if p := migration.Problem(row.Error); p != nil {
		out.Error = errorToAPI(ctx, p)
	}
	return out, err
}
