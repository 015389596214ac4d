package authorizer

import (
	"errors"
	"testing"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

func TestProblem(t *testing.T) {
	t.Parallel()
	sentinel := errors.New("x")
	if got := Problem(sentinel); !errors.Is(got, sentinel) {
		t.Errorf("Problem of another error = %v", got)
	}
	if got := Problem(nil); got != nil {
		t.Errorf("Problem(nil) = %v", got)
	}
	for name, tc := range map[string]struct {
		err       *wechat.Error
		code      string
		status    int
		retryable bool
	}{
		"nothing left":    {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Class: wechat.NotSent, Err: sentinel}, problem.CodeWeChatUnreachable, 502, true},
		"no answer":       {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Err: sentinel}, problem.CodeWeChatUnreachable, 502, true},
		"busy":            {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Code: -1}, problem.CodeWeChatSystemError, 502, true},
		"delete refused":  {&wechat.Error{Endpoint: "store.delete", Family: wechat.FamilyStore, Code: -1}, problem.CodeStoreDeleteFailed, 409, true},
		"never seen":      {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Code: 987654}, problem.CodeWeChatUnknownError, 502, false},
		"daily quota":     {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Code: 45009}, problem.CodeWeChatQuotaExhausted, 429, true},
		"minute":          {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Code: 45011}, problem.CodeWeChatRateLimited, 429, true},
		"no set":          {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Code: 61007}, problem.CodePermissionSetMissing, 403, false},
		"gone":            {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Code: 61003}, problem.CodeMerchantDeauthorized, 403, false},
		"password":        {&wechat.Error{Endpoint: "store.list", Family: wechat.FamilyStore, Code: 42007}, problem.CodeMerchantNeedsReauthorization, 409, false},
		"ip":              {&wechat.Error{Endpoint: "component.token", Family: wechat.FamilyComponent, Code: 61004}, problem.CodePlatformIPNotAllowed, 503, false},
		"ticket":          {&wechat.Error{Endpoint: "component.token", Family: wechat.FamilyComponent, Code: 61006}, problem.CodeComponentTicketStale, 503, true},
		"map service":     {&wechat.Error{Endpoint: "district.list", Family: wechat.FamilyDistrict, Code: 1_000_000_310}, problem.CodeMapServiceError, 502, true},
		"a field's fault": {&wechat.Error{Endpoint: "store.add", Family: wechat.FamilyStore, Code: 85055}, problem.CodeMapPOIIDInvalid, 422, false},
	} {
		p, ok := problem.As(Problem(tc.err))
		if !ok || p.Code != tc.code || p.Kind.Status() != tc.status || p.Retryable != tc.retryable {
			t.Errorf("%s: %+v, want %s %d", name, p, tc.code, tc.status)
			continue
		}
		if (p.Upstream != nil) != (tc.err.Code != 0) {
			t.Errorf("%s: upstream = %+v", name, p.Upstream)
		}
		if p.Kind == problem.RateLimited && p.RetryAfter <= 0 {
			t.Errorf("%s: no Retry-After", name)
		}
	}
	p, _ := problem.As(Problem(&wechat.Error{Endpoint: "store.add", Family: wechat.FamilyStore, Code: 85055}))
	if len(p.Fields) != 1 || p.Fields[0].Pointer != "/map_poi_id" {
		t.Errorf("fields = %+v", p.Fields)
	}
}
