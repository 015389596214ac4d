package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// ListAPIKeys implements GET /v1/api-keys.
func (s *Server) ListAPIKeys(ctx context.Context, req oapi.ListAPIKeysRequestObject) (oapi.ListAPIKeysResponseObject, error) {
	p, who := req.Params, CallerFrom(ctx)
	scope := ListScope{Operation: "listAPIKeys", Tenant: who.TenantID, Filters: []string{fmt.Sprint(who.Merchants), deref(p.Status)}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	keys, more, err := s.Keys.List(ctx, who, deref(p.Status), page)
	if err != nil {
		return nil, err
	}
	out := oapi.APIKeyList{Data: make([]oapi.APIKey, len(keys)), HasMore: more}
	for i, k := range keys {
		out.Data[i] = keyToAPI(k)
	}
	if more {
		if out.NextCursor, err = s.next(scope, keys[len(keys)-1].ID); err != nil {
			return nil, err
		}
	}
	return oapi.ListAPIKeys200JSONResponse{Body: out, Headers: oapi.ListAPIKeys200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// page is where a list over our own rows goes on.
func (s *Server) page(scope ListScope, cursor *oapi.Cursor, limit *oapi.Limit) (tenant.Page, error) {
	page := tenant.Page{Limit: limitOf(limit)}
	at, ok, err := DecodeCursor[position](s.cursors, scope, cursor)
	if ok {
		page.Before = &at.Before
	}
	return page, err
}

func (s *Server) next(scope ListScope, last uuid.UUID) (*string, error) {
	cursor, err := EncodeCursor(s.cursors, scope, position{last})
	return &cursor, err
}

// CreateAPIKey implements POST /v1/api-keys.
func (s *Server) CreateAPIKey(ctx context.Context, req oapi.CreateAPIKeyRequestObject) (oapi.CreateAPIKeyResponseObject, error) {
	b := req.Body
	n := tenant.NewKey{Name: b.Name, Scopes: b.Scopes, Merchants: valueOf(b.MerchantIds), ExpiresAt: valueOf(b.ExpiresAt)}
	if b.RateLimit != nil {
		n.RateLimit = &tenant.RateLimit{PerSecond: b.RateLimit.PerSecond, Burst: int(b.RateLimit.Burst)}
	}
	key, token, err := s.Keys.Issue(ctx, CallerFrom(ctx), n)
	if err != nil {
		return nil, err
	}
	body := createdToAPI(key, token)
	return oapi.CreateAPIKey201JSONResponse{Body: body, Headers: oapi.CreateAPIKey201ResponseHeaders{Location: new("/v1/api-keys/" + body.ID)}}, nil
}

// GetAPIKey implements GET /v1/api-keys/{id}.
func (s *Server) GetAPIKey(ctx context.Context, req oapi.GetAPIKeyRequestObject) (oapi.GetAPIKeyResponseObject, error) {
	id, err := pathID(typeid.Key, req.ID)
	if err != nil {
		return nil, err
	}
	key, err := s.Keys.Get(ctx, CallerFrom(ctx), id)
	if err != nil {
		return nil, err
	}
	body := keyToAPI(key)
	etag, err := etagOf(key.CreatedAt, body)
	if err != nil {
		return nil, err
	}
	if NotModified(req.Params.IfNoneMatch, etag) {
		return oapi.GetAPIKey304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: &etag}}, nil
	}
	return oapi.GetAPIKey200JSONResponse{Body: body, Headers: oapi.GetAPIKey200ResponseHeaders{ETag: &etag}}, nil
}

// RevokeAPIKey implements DELETE /v1/api-keys/{id}.
func (s *Server) RevokeAPIKey(ctx context.Context, req oapi.RevokeAPIKeyRequestObject) (oapi.RevokeAPIKeyResponseObject, error) {
	id, err := pathID(typeid.Key, req.ID)
	if err != nil {
		return nil, err
	}
	if err := s.Keys.Revoke(ctx, CallerFrom(ctx), id); err != nil {
		return nil, err
	}
	return oapi.RevokeAPIKey204Response{}, nil
}

// RotateAPIKey implements POST /v1/api-keys/{id}/rotations.
func (s *Server) RotateAPIKey(ctx context.Context, req oapi.RotateAPIKeyRequestObject) (oapi.RotateAPIKeyResponseObject, error) {
	id, err := pathID(typeid.Key, req.ID)
	if err != nil {
		return nil, err
	}
	overlap := 24 * time.Hour
	if o := req.Body.Overlap; o != nil {
		if overlap, err = isoDuration(*o); err != nil {
			return nil, problem.Of(problem.CodeValidationFailed).WithFields(field(stateOf(ctx), "/overlap", ruleOverlap, "")).WithErr(err)
		}
	}
	key, token, err := s.Keys.Rotate(ctx, CallerFrom(ctx), id, overlap, valueOf(req.Body.ExpiresAt))
	if err != nil {
		return nil, err
	}
	body := createdToAPI(key, token)
	return oapi.RotateAPIKey201JSONResponse{Body: body, Headers: oapi.RotateAPIKey201ResponseHeaders{Location: new("/v1/api-keys/" + body.ID)}}, nil
}

var isoPattern = regexp.MustCompile(`^P(?:([0-9]{1,4})D|T(?:([0-9]{1,5})H)?(?:([0-9]{1,6})M)?(?:([0-9]{1,7})S)?)$`)

// isoDuration reads days, or hours, minutes and seconds.
func isoDuration(s string) (time.Duration, error) {
	m := isoPattern.FindStringSubmatch(s)
	if m == nil || m[0] == "PT" {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	var d time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return 0, err
		}
		d += time.Duration(n) * unit
	}
	return d, nil
}

// pathID reads an id that stands in the path; what is none names nothing.
func pathID(prefix typeid.Prefix, s string) (uuid.UUID, error) {
	id, err := typeid.Parse(prefix, s)
	if err != nil {
		return id, problem.Of(problem.CodeNotFound).WithErr(err)
	}
	return id, nil
}

// etagOf names a state of an answer: the time of the row's last change, which
// If-Match is compared with, and what is shown.
func etagOf(changed time.Time, body any) (string, error) {
	js, err := json.Marshal(body)
	return ETag(changed.UnixMicro(), js), err
}

func keyToAPI(k tenant.Key) oapi.APIKey {
	out := oapi.APIKey{
		ID: typeid.Format(typeid.Key, k.ID), Name: k.Name, Scopes: k.Scopes, Status: oapi.APIKeyStatus(k.Status(time.Now())), CreatedBy: k.CreatedBy,
		RotatedFrom: idPointer(typeid.Key, k.RotatedFrom), CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, LastUsedAt: k.LastUsedAt,
	}
	if k.Merchants != nil {
		ids := make([]string, len(k.Merchants))
		for i, m := range k.Merchants {
			ids[i] = typeid.Format(typeid.Merchant, m)
		}
		out.MerchantIds = &ids
	}
	if k.RateLimit != nil {
		out.RateLimit = &oapi.RateLimit{PerSecond: k.RateLimit.PerSecond, Burst: int32(k.RateLimit.Burst)}
	}
	return out
}

// createdToAPI gives the token out, here and nowhere else.
func createdToAPI(k tenant.Key, token secret.Text) oapi.APIKeyCreated {
	body := keyToAPI(k)
	return oapi.APIKeyCreated{ID: body.ID, Token: token.Reveal(), Key: body}
}
