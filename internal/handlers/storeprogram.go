package handlers

import (
	"context"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// GetStoreProgram implements GET /v1/merchants/{merchant_id}/store-program.
func (s *Server) GetStoreProgram(ctx context.Context, req oapi.GetStoreProgramRequestObject) (oapi.GetStoreProgramResponseObject, error) {
	m, err := s.inPath(ctx, req.MerchantID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if deref(req.Params.Source) == "live" {
		if err := s.Authorizer.Check(m, wechat.GetMerchantAuditInfo); err != nil {
			return nil, err
		}
		if err := s.Ledger.RefreshStoreProgram(ctx, m); err != nil {
			return nil, err
		}
	}
	p, err := s.Ledger.CurrentStoreProgram(ctx, m)
	if err != nil {
		return nil, err
	}
	etag := recordETag(p)
	if NotModified(req.Params.IfNoneMatch, *etag) {
		return oapi.GetStoreProgram304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	return oapi.GetStoreProgram200JSONResponse{Body: programToAPI(p), Headers: oapi.GetStoreProgram200ResponseHeaders{ETag: etag}}, nil
}

// ApplyStoreProgram implements POST /v1/merchants/{merchant_id}/store-program.
func (s *Server) ApplyStoreProgram(ctx context.Context, req oapi.ApplyStoreProgramRequestObject) (oapi.ApplyStoreProgramResponseObject, error) {
	m, err := s.inPath(ctx, req.MerchantID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.ApplyMerchant); err != nil {
		return nil, err
	}
	b := *req.Body
	f := ledger.StoreProgramFields{
		PrimaryCategoryID: b.PrimaryCategoryID, SecondaryCategoryID: b.SecondaryCategoryID, Nickname: b.Nickname, Introduction: b.Introduction,
		HeadImageMediaID: b.HeadImageMediaID, OrganizationCodeMediaID: b.OrganizationCodeMediaID,
	}
	f.QualificationMediaIDs = valueOf(b.QualificationMediaIds)
	f.OtherFileMediaIDs = valueOf(b.OtherFileMediaIds)
	fields := append(nicknameFields(ctx, f.Nickname), s.categoryFields(ctx, m, f)...)
	if len(fields) > 0 {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(fields...)
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "applyStoreProgram", m.ID, b)
	if err != nil {
		return nil, err
	}
	p, done, err := s.Ledger.ApplyStoreProgram(ctx, r, f)
	if err != nil {
		return nil, err
	}
	body := programToAPI(p)
	return oapi.ApplyStoreProgram202JSONResponse{Body: body, Headers: oapi.ApplyStoreProgram202ResponseHeaders{
		ETag: recordETag(p), IdempotencyReplayed: replayed(done.Replayed), Location: new(programPath(body)),
		Link: statusLink(body.Operation, body.Audit), OperationID: operationID(done)}}, nil
}

// The width of a nickname (document 000 §4.2).
const minNickname, maxNickname = 4, 30

func nicknameFields(ctx context.Context, name string) []problem.Field {
	refuse := func(r rule, bound int) []problem.Field {
		return []problem.Field{field(stateOf(ctx), "/nickname", r, strconv.Itoa(bound))}
	}
	// The letters of another width or look count as those that they stand for.
	switch wide, plain := width(name), strings.ToLower(norm.NFKC.String(name)); {
	case wide < minNickname:
		return refuse(ruleTooNarrow, minNickname)
	case wide > maxNickname:
		return refuse(ruleTooWide, maxNickname)
	case invisible(name):
		return refuse(ruleInvisible, 0)
	case strings.Contains(plain, "wechat") || strings.Contains(plain, "微信"):
		return refuse(ruleNamesWeChat, 0)
	}
	return nil
}

// invisible reports whether a text holds characters that nobody sees, such as
// those that join letters or turn the direction of writing: names that look
// alike would not be the same.
func invisible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Cf, r) })
}

// categoryFields checks the categories where they can be read; elsewhere WeChat
// decides.
func (s *Server) categoryFields(ctx context.Context, m authorizer.Merchant, f ledger.StoreProgramFields) []problem.Field {
	tree, err := s.Reference.Categories(ctx, m)
	if err != nil {
		return nil
	}
	for _, c := range tree.Rows {
		if c.ID != f.SecondaryCategoryID || c.Level != 2 {
			continue
		}
		switch {
		case c.ParentID != f.PrimaryCategoryID:
			return []problem.Field{field(stateOf(ctx), "/primary_category_id", ruleParentCategory, "")}
		case c.Sensitive && len(f.QualificationMediaIDs) == 0:
			return []problem.Field{field(stateOf(ctx), "/qualification_media_ids", ruleSensitive, "")}
		}
		return nil
	}
	return []problem.Field{field(stateOf(ctx), "/secondary_category_id", ruleSecondLevel, "")}
}

// ModifyStoreProgram implements PATCH /v1/merchants/{merchant_id}/store-program.
func (s *Server) ModifyStoreProgram(ctx context.Context, req oapi.ModifyStoreProgramRequestObject) (oapi.ModifyStoreProgramResponseObject, error) {
	m, err := s.inPath(ctx, req.MerchantID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.ModifyMerchant); err != nil {
		return nil, err
	}
	version, err := IfMatch(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	now, err := s.Ledger.CurrentStoreProgram(ctx, m)
	if err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "modifyStoreProgram", m.ID, *req.Body)
	if err != nil {
		return nil, err
	}
	p, done, err := s.Ledger.ModifyStoreProgram(ctx, r, now.ID, version, deref(req.Body.HeadImageMediaID), deref(req.Body.Introduction))
	if err != nil {
		return nil, err
	}
	body := programToAPI(p)
	if done.Operation.State == "succeeded" {
		return oapi.ModifyStoreProgram200JSONResponse{Body: body, Headers: oapi.ModifyStoreProgram200ResponseHeaders{
			ETag: recordETag(p), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	return oapi.ModifyStoreProgram202JSONResponse{Body: body, Headers: oapi.ModifyStoreProgram202ResponseHeaders{
		ETag: recordETag(p), IdempotencyReplayed: replayed(done.Replayed), Location: new(programPath(body)),
		Link: statusLink(body.Operation, body.Audit), OperationID: operationID(done)}}, nil
}

func programPath(p oapi.StoreProgram) string {
	return "/v1/merchants/" + p.MerchantID + "/store-program"
}

func programToAPI(r ledger.StoreProgram) oapi.StoreProgram {
	f := r.Known
	out := oapi.StoreProgram{
		ID: typeid.Format(typeid.StoreProgram, r.ID), MerchantID: typeid.Format(typeid.Merchant, r.MerchantID),
		PrimaryCategoryID: optional(&f.PrimaryCategoryID), SecondaryCategoryID: optional(&f.SecondaryCategoryID), Nickname: optional(&f.Nickname),
		Introduction: optional(&f.Introduction), HeadImageMediaID: optional(&f.HeadImageMediaID), QualificationMediaIds: orEmpty(f.QualificationMediaIDs),
		OrganizationCodeMediaID: f.OrganizationCodeMediaID, OtherFileMediaIds: orEmpty(f.OtherFileMediaIDs),
		Status: oapi.StoreProgramStatus(r.Status), UpstreamStatus: r.UpstreamStatus, Operation: openOperation(r.Operation),
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), SyncedAt: utc(r.SyncedAt),
	}
	out.Audit = auditSummary(r.Audit)
	if r.Audit != nil && r.Status == "awaiting_admin_confirmation" {
		out.ConfirmBefore = utc(r.Audit.DeadlineAt)
	}
	return out
}
