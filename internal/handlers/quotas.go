package handlers

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// ListQuotas implements GET /v1/quotas.
func (s *Server) ListQuotas(ctx context.Context, req oapi.ListQuotasRequestObject) (oapi.ListQuotasResponseObject, error) {
	m, err := s.actingFiltered(ctx, req.Params.MerchantID, req.Params.FilterMerchantID)
	if err != nil {
		return nil, err
	}
	out, err := s.quotas(ctx, m)
	return oapi.ListQuotas200JSONResponse{Body: out}, err
}

// SyncQuotas implements POST /v1/quotas/sync.
func (s *Server) SyncQuotas(ctx context.Context, req oapi.SyncQuotasRequestObject) (oapi.SyncQuotasResponseObject, error) {
	m, err := s.actingFiltered(ctx, req.Params.MerchantID, req.Params.FilterMerchantID)
	if err != nil {
		return nil, err
	}
	for _, e := range quota.Limited {
		if err := s.Authorizer.Check(m, e); err != nil {
			return nil, err
		}
		reply, err := authorizer.Call[wechat.GetQuotaReply](ctx, s.Authorizer, m, wechat.GetQuota, nil, wechat.GetQuotaRequest{CGIPath: e.Path})
		if err != nil {
			return nil, err
		}
		if err := s.Authorizer.SyncQuota(ctx, m, e, reply); err != nil {
			return nil, err
		}
	}
	out, err := s.quotas(ctx, m)
	return oapi.SyncQuotas200JSONResponse{Body: out}, err
}

// actingFiltered is acting where a query parameter may name the merchant too.
func (s *Server) actingFiltered(ctx context.Context, header, filter *string) (authorizer.Merchant, error) {
	named, err := s.narrowed(ctx, header, filter)
	if err != nil {
		return authorizer.Merchant{}, err
	}
	return s.acting(ctx, named)
}

func (s *Server) quotas(ctx context.Context, m authorizer.Merchant) (oapi.QuotaList, error) {
	out := oapi.QuotaList{Data: []oapi.Quota{}}
	buckets, month, err := s.Authorizer.QuotasToday(ctx, m)
	resets := quota.Resets(time.Now()).UTC()
	for _, b := range buckets {
		left := int32(max(0, b.Limit-b.Used))
		if b.Closed {
			left = 0
		}
		q := oapi.Quota{Bucket: b.Name, Limit: new(int32(b.Limit)), Used: int32(b.Used), Remaining: &left, ReservedForInteractive: int32(b.Reserved),
			Window: "day", Timezone: "Asia/Shanghai", ResetsAt: resets, Source: "gateway", State: oapi.QuotaStateOk}
		switch {
		case left == 0:
			q.State = oapi.QuotaStateExhausted
		case b.Used*5 >= b.Limit*4:
			q.State = oapi.QuotaStateNear
		}
		if b.UpstreamUsed != nil && b.UpstreamAt != nil {
			q.Upstream = &oapi.QuotaUpstream{Used: *b.UpstreamUsed, AsOf: b.UpstreamAt.UTC()}
		}
		out.Data = append(out.Data, q)
	}
	changes := oapi.Quota{Bucket: "store-program-modify", Used: int32(month.Changes), Window: "month", Timezone: "Asia/Shanghai", ResetsAt: month.Ends.UTC(),
		Source: "gateway", State: oapi.QuotaStateOk}
	if month.Refused {
		changes.State = oapi.QuotaStateExhausted
	}
	out.Data = append(out.Data, changes)
	return out, err
}

// noteQuota keeps what the request has drawn on, the newest word of each bucket.
func (s *state) noteQuota(q quota.State) {
	s.drawn.Lock()
	defer s.drawn.Unlock()
	for i, old := range s.quotas {
		if old.Merchant == q.Merchant && old.Bucket == q.Bucket {
			s.quotas[i] = q
			return
		}
	}
	s.quotas = append(s.quotas, q)
}

// quotaHeaders adds WeChat's quotas to the RateLimit headers: all policies, and
// what is left of the scarcest (draft-ietf-httpapi-ratelimit-headers).
func (s *state) quotaHeaders(h http.Header) {
	s.drawn.Lock()
	defer s.drawn.Unlock()
	if len(s.quotas) == 0 {
		return
	}
	policies, left := []string{h.Get(headerPolicy)}, s.left
	for _, q := range s.quotas {
		who := base64.StdEncoding.EncodeToString([]byte(typeid.Format(typeid.Merchant, q.Merchant)))
		policies = append(policies, `"`+q.Bucket+`";q=`+strconv.Itoa(q.Limit)+`;w=86400;qu="calls";pk=:`+who+`:`)
		if q.Left < left {
			left = q.Left
			h.Set(headerRateLimit, `"`+q.Bucket+`";r=`+strconv.Itoa(q.Left)+`;t=`+strconv.Itoa(int(q.Resets.Seconds())))
		}
	}
	h.Set(headerPolicy, strings.Join(policies, ", "))
}
