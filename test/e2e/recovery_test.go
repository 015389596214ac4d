package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// What goes wrong at WeChat and is mended here: for each fault, what the caller
// of the REST API sees, and what is in the database afterwards.

const (
	tokenCall     = "cgi-bin/component/api_authorizer_token"
	listCall      = "cgi-bin/component/api_get_authorizer_list"
	componentCall = "cgi-bin/component/api_component_token"
)

// patient is a world with one merchant, and what its rows held before the fault.
type patient struct {
	*world.World
	gateway  *world.Gateway
	client   *world.Client
	merchant uuid.UUID
	appid    string
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	return &patient{w, g, c, w.UUID(typeid.Merchant, c.Merchant), sandbox.DemoOfficialAccount}
}

func (p *patient) tokenRow() map[string]any {
	return p.Row(`SELECT * FROM authorizer_tokens WHERE merchant_id = $1`, p.merchant)
}

// refreshToken is the one that the database holds, opened.
func (p *patient) refreshToken() string {
	return p.Open("authorizer_tokens", "refresh_token_ct", p.appid, p.merchant.String(), p.tokenRow()["refresh_token_ct"])
}

// ids are all that WeChat ever gave for the merchant, and the stores that they
// belong to.
func (p *patient) ids() []string {
	var out []string
	for _, r := range p.Query(`SELECT id_type || ' ' || wechat_id AS id FROM wechat_id_ledger WHERE merchant_id = $1
		UNION SELECT type || ' ' || id || ' ' || coalesce(wechat_id, '-') FROM resources WHERE merchant_id = $1
		UNION SELECT 'audit ' || id || ' ' || coalesce(wechat_audit_id, '-') FROM audits WHERE merchant_id = $1
		UNION SELECT 'merchant ' || id || ' ' || appid FROM merchants WHERE id = $1 ORDER BY 1`, p.merchant) {
		out = append(out, r["id"].(string))
	}
	return out
}

// expireAll ends every access token that the gateway holds, by its database's
// clock: the simulator's clock can be advanced, the database's is the real
// one. access_gen is named so that the change is notified like a real one.
func (p *patient) expireAll() {
	p.Exec(`UPDATE authorizer_tokens SET access_expires_at = now() - interval '1 second', access_gen = access_gen`)
	p.Exec(`UPDATE component_tokens SET access_expires_at = now() - interval '1 second', access_gen = access_gen`)
}

// works reads and writes at WeChat, and sees nothing of what went wrong.
func (p *patient) works(n int) {
	read := p.client.Do("GET", "/v1/stores?source=live", nil).Want(http.StatusOK)
	written := p.client.Do("POST", "/v1/stores", p.NewStore(n)).Want(http.StatusAccepted)
	for _, a := range []*world.Answer{read, written} {
		if strings.Contains(string(a.Body), "errcode") || strings.Contains(string(a.Body), "@@@") {
			a.Fail("WeChat shows through")
		}
	}
}

// Refresh refused with 61023: the list has another refresh token, which is
// taken without anybody noticing (platform.md §5.2).
func TestRecoveryRefreshTokenFromTheList(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	before, old := p.tokenRow(), p.refreshToken()
	p.Control("POST", "credentials", map[string]string{"expire_access_tokens": p.appid, "invalidate_refresh_token": p.appid}, nil)

	p.works(1)

	var listed struct {
		List []struct {
			AppID   string `json:"authorizer_appid"`
			Refresh string `json:"refresh_token"`
		}
	}
	calls := p.Journal(listCall)
	if len(calls) != 1 || json.Unmarshal([]byte(calls[0].Reply), &listed) != nil || len(listed.List) != 1 {
		t.Fatalf("%d calls of the list, want 1: %v", len(calls), calls)
	}
	after := p.tokenRow()
	if now := p.refreshToken(); now != listed.List[0].Refresh || now == old {
		t.Error("the database does not hold the refresh token of the list")
	}
	if g := generation(after) - generation(before); g != 1 {
		t.Errorf("%d generations of the token were made, want 1", g)
	}
	history := after["refresh_history"].([]any)
	if len(history) != 1 || p.Open("authorizer_tokens", "refresh_history", p.appid, p.merchant.String(), history[0]) != old {
		t.Errorf("the one before it was not kept: %d in the history", len(history))
	}
	if n := len(p.Journal(tokenCall)); n != 2 {
		t.Errorf("%d refreshes, want the refused one and one more", n)
	}
}

func generation(row map[string]any) int32 { return row["access_gen"].(int32) }

// The same, and the list doesn't help: the merchant has to authorise again. No
// id is lost, and after a new authorisation everything goes on.
func TestRecoveryNeedsReauthorization(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		fault func(p *patient)
	}{
		{"the list shows no token for it", func(p *patient) {
			p.Control("POST", "settings", map[string]bool{"omit_refresh_token_in_list": true}, nil)
		}},
		{"it is not in the list", func(p *patient) {
			p.Fault(listCall, 1, map[string]any{"body": `{"total_count":0,"list":[]}`})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.client.Do("POST", "/v1/stores", p.NewStore(1)).Want(http.StatusAccepted)
			p.Eventually("the store is active", p.all("active", 3))
			ids := p.ids()
			p.Control("POST", "credentials", map[string]string{"expire_access_tokens": p.appid, "invalidate_refresh_token": p.appid}, nil)
			tc.fault(p)

			read := p.client.Do("GET", "/v1/stores?source=live", nil).WantProblem(http.StatusConflict, "merchant_needs_reauthorization")
			if read.Get("retryable") != "false" || read.Get("authorization_link_hint", "body", "expected_appid") != p.appid {
				t.Errorf("problem: %s", read.Body)
			}
			refused := len(p.Journal(tokenCall))
			p.client.Do("POST", "/v1/stores", p.NewStore(2)).WantProblem(http.StatusConflict, "merchant_needs_reauthorization")
			p.client.Do("POST", "/v1/merchants/"+p.appid+"/token-refreshes", nil).WantProblem(http.StatusConflict, "merchant_needs_reauthorization")
			if n := len(p.Journal(tokenCall)); n != refused || refused != 1 {
				t.Errorf("%d refreshes, then %d: a lost refresh token was tried again", refused, n)
			}
			m := p.client.Do("GET", "/v1/merchants/"+p.appid, nil).Want(http.StatusOK)
			if m.Get("status") != "needs_reauthorization" || m.Get("token", "state") != "invalid" {
				t.Errorf("merchant: %s", m.Body)
			}

			if got := p.Row(`SELECT status FROM merchants WHERE id = $1`, p.merchant)["status"]; got != "needs_reauthorization" {
				t.Errorf("status in the database = %v", got)
			}
			if row := p.tokenRow(); row["invalid_reason"] != "refresh_token" || row["access_ct"] != nil || row["refresh_token_ct"] == nil {
				t.Errorf("token row: invalid %v, access token kept %t, refresh token kept %t", row["invalid_reason"], row["access_ct"] != nil, row["refresh_token_ct"] != nil)
			}
			if diff := cmp.Diff(ids, p.ids()); diff != "" {
				t.Errorf("ids: %s", diff)
			}

			p.Control("POST", "settings", map[string]bool{"omit_refresh_token_in_list": false}, nil)
			if again := p.Authorize(p.gateway, p.appid); again != p.client.Merchant {
				t.Errorf("authorised again as %s, was %s", again, p.client.Merchant)
			}
			p.works(3)
		})
	}
}

// all says when n stores are in this state.
func (p *patient) all(status string, n int) func() error {
	return func() error {
		a := p.client.Do("GET", "/v1/stores?status="+status, nil)
		var list struct{ Data []json.RawMessage }
		a.Into(&list)
		if len(list.Data) != n {
			return fmt.Errorf("%d stores are %s, want %d: %s", len(list.Data), status, n, a.Body)
		}
		return nil
	}
}

// A refresh that brings no refresh token: the old one stays, byte for byte.
func TestRecoveryReplyWithoutRefreshToken(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	before, token := p.tokenRow(), p.refreshToken()
	p.Control("POST", "settings", map[string]bool{"omit_refresh_token_in_reply": true}, nil)
	for n := range 2 {
		p.Control("POST", "credentials", map[string]string{"expire_access_tokens": p.appid}, nil)
		p.works(n)
	}
	after := p.tokenRow()
	if g := generation(after) - generation(before); g != 2 {
		t.Errorf("%d generations of the token were made, want 2", g)
	}
	if !bytes.Equal(before["refresh_token_ct"].([]byte), after["refresh_token_ct"].([]byte)) || p.refreshToken() != token {
		t.Error("the refresh token was changed by a reply that brought none")
	}
	if strings.Contains(p.Journal(tokenCall)[0].Reply, "refresh_token") {
		t.Error("the fault had no effect: the reply brought one")
	}
}

// Tickets stop for hours. As long as a kept one is good everything works; then
// calls wait for one, records can still be read, and the operator asks WeChat
// to push again.
func TestRecoveryTicketsStop(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.keptTickets()
	p.Control("POST", "settings", map[string]bool{"tickets_stopped": true}, nil)
	last := p.newestTicket()

	p.Control("POST", "clock", map[string]string{"advance": "3h"}, nil)
	p.expireAll()
	p.works(1)
	if n := len(p.Journal(componentCall)); n != 2 {
		t.Errorf("%d component tokens were asked for, want 2", n)
	}

	p.Control("POST", "clock", map[string]string{"advance": "10h"}, nil)
	p.expireAll()
	for _, call := range []func() *world.Answer{
		func() *world.Answer { return p.client.Do("GET", "/v1/stores?source=live", nil) },
		func() *world.Answer { return p.client.Do("POST", "/v1/stores", p.NewStore(2)) },
	} {
		a := call().WantProblem(http.StatusServiceUnavailable, "component_ticket_stale")
		if a.Header.Get("Retry-After") == "" || a.Get("retryable") != "true" {
			t.Errorf("%v %s", a.Header, a.Body)
		}
	}
	if n := len(p.Journal("wxa/add_store")); n != 1 {
		t.Errorf("%d stores were sent, want 1", n)
	}
	p.client.Do("GET", "/v1/stores", nil).Want(http.StatusOK)
	if got := p.newestTicket(); got != last {
		t.Error("a ticket came although they are stopped")
	}

	admin := p.Client(p.gateway, "").As(p.AdminKey())
	health := admin.Do("GET", "/v1/admin/tenants/"+p.Tenant.ID+"/health", nil).Want(http.StatusOK)
	if health.Get("status") != "failing" || health.Get("component_token", "state") == "fresh" {
		t.Errorf("health without tickets: %s", health.Body)
	}
	admin.Do("POST", "/v1/admin/tenants/"+p.Tenant.ID+"/ticket-restarts", nil).Want(http.StatusAccepted)
	p.Eventually("calls work again", func() error {
		if a := p.client.Do("GET", "/v1/stores?source=live", nil); a.Status != http.StatusOK {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	p.works(3)
	if n := len(p.Journal("cgi-bin/component/api_start_push_ticket")); n != 1 {
		t.Errorf("%d calls of api_start_push_ticket, want 1", n)
	}
	p.keptTickets()
	p.Eventually("three fresh tickets", func() error {
		if n := len(p.Query(`SELECT 1 FROM component_tickets WHERE rejected_at IS NULL`)); n != 3 {
			return fmt.Errorf("%d of the tickets kept can be used", n)
		}
		return nil
	})
}

// keptTickets waits until three tickets are kept, and no more.
func (p *patient) keptTickets() {
	p.Eventually("three tickets", func() error {
		if n := len(p.Query(`SELECT 1 FROM component_tickets`)); n != 3 {
			return fmt.Errorf("%d tickets are kept", n)
		}
		return nil
	})
}

// newestTicket is the hash of the last ticket that was pushed, once the
// gateway has it.
func (p *patient) newestTicket() string {
	var sum []byte
	p.Eventually("the newest ticket arrives", func() error {
		var list struct {
			Pushes []struct{ Name, XML string }
		}
		p.Control("GET", "pushes", nil, &list)
		for _, push := range slices.Backward(list.Pushes) {
			if push.Name == "component_verify_ticket" {
				_, rest, _ := strings.Cut(push.XML, "<ComponentVerifyTicket><![CDATA[")
				value, _, _ := strings.Cut(rest, "]]>")
				s := sha256.Sum256([]byte(value))
				sum = s[:]
				break
			}
		}
		if len(p.Query(`SELECT 1 FROM component_tickets WHERE ticket_sha256 = $1`, sum)) == 0 {
			return fmt.Errorf("it is not among those kept")
		}
		return nil
	})
	return fmt.Sprintf("%x", sum)
}

// The newest ticket is refused with 61006: an older one that was kept makes
// the token.
func TestRecoveryNewestTicketRefused(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.keptTickets()
	p.Control("POST", "settings", map[string]bool{"tickets_stopped": true}, nil)
	newest := p.newestTicket()
	before := p.Row(`SELECT access_gen FROM component_tokens`)
	asked := len(p.Journal(componentCall))
	p.Control("POST", "credentials", map[string]string{"expire_access_tokens": "all", "reject_ticket": "newest"}, nil)

	p.works(1)

	calls := p.Journal(componentCall)[asked:]
	if len(calls) != 2 {
		t.Fatalf("%d component tokens were asked for, want 2", len(calls))
	}
	var sums []string
	for i, c := range calls {
		var sent struct {
			Ticket string `json:"component_verify_ticket"`
		}
		if err := json.Unmarshal([]byte(c.Body), &sent); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, fmt.Sprintf("%x", sha256.Sum256([]byte(sent.Ticket))))
		if refused := strings.Contains(c.Reply, "61006"); refused != (i == 0) {
			t.Errorf("call %d was answered %.60s", i, c.Reply)
		}
	}
	if sums[0] != newest || sums[1] == newest {
		t.Errorf("tickets were tried in the order %.8s, the newest is %.8s", sums, newest)
	}
	for _, row := range p.Query(`SELECT encode(ticket_sha256, 'hex') AS sum, rejected_at IS NOT NULL AS rejected FROM component_tickets`) {
		if row["rejected"] != (row["sum"] == newest) {
			t.Errorf("ticket %.8s is marked as refused: %v", row["sum"], row["rejected"])
		}
	}
	if len(p.Query(`SELECT 1 FROM component_tickets WHERE encode(ticket_sha256, 'hex') = $1`, sums[1])) != 1 {
		t.Error("the token was not made with a kept ticket")
	}
	row := p.Row(`SELECT access_gen, access_expires_at > now() + interval '1 hour' AS fresh FROM component_tokens`)
	if generation(row)-generation(before) != 1 || row["fresh"] != true {
		t.Errorf("component token: generation %d after %d, fresh %v", generation(row), generation(before), row["fresh"])
	}
}

// updateauthorized without the sets that open the store calls: refused here,
// before anything is written or sent.
func TestRecoverySetsWithdrawn(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.Control("POST", "accounts", map[string]any{"appid": p.appid, "sets": []int{1, 11}}, nil)
	p.Eventually("the new sets", func() error {
		if a := p.client.Do("GET", "/v1/merchants/"+p.appid, nil); a.Get("permission_sets", "0", "id") != "1" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	a := p.client.Do("POST", "/v1/stores", p.NewStore(1)).WantProblem(http.StatusForbidden, "permission_set_missing")
	var problem struct {
		Required []int `json:"required_any_of"`
		Granted  []int `json:"granted"`
		Hint     any   `json:"authorization_link_hint"`
	}
	a.Into(&problem)
	if diff := cmp.Diff([][]int{{8, 9, 10, 13}, {1, 11}}, [][]int{problem.Required, problem.Granted}); diff != "" || problem.Hint == nil {
		t.Errorf("problem: %s %s", diff, a.Body)
	}
	p.client.Do("GET", "/v1/stores?source=live", nil).WantProblem(http.StatusForbidden, "permission_set_missing")
	if n := len(p.Journal("wxa/add_store")); n != 0 {
		t.Errorf("%d calls of add_store were made", n)
	}
	if n := len(p.Query(`SELECT 1 FROM operations WHERE merchant_id = $1`, p.merchant)); n != 0 {
		t.Errorf("%d operations were written", n)
	}
	row := p.Row(`SELECT status, permission_sets FROM merchants WHERE id = $1`, p.merchant)
	if diff := cmp.Diff([]any{int32(1), int32(11)}, row["permission_sets"]); diff != "" || row["status"] != "authorized" {
		t.Errorf("merchant in the database: %v %s", row["status"], diff)
	}
	// A call of our own that WeChat refused meanwhile (61007) tells it too.
	updated := p.Query(`SELECT 1 FROM outbox WHERE type = 'merchant.authorization_updated'`)
	if len(updated) != 1 && len(updated) != 2 {
		t.Errorf("%d events merchant.authorization_updated, want one by the push", len(updated))
	}
}

// Pushes under the EncodingAESKey before a change: WeChat goes on using it for
// a while (platform.md §7.2). The push has its effect, and, sent again under
// the new key, no second one.
func TestRecoveryPushUnderPreviousKey(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	const next = "anotherAnotheranotherAnotheranotherAnother1"
	p.Hold(true)
	created := p.client.Do("POST", "/v1/stores", p.NewStore(1)).Want(http.StatusAccepted)
	p.Run("tenant", "set-credentials", p.Tenant.ID, "--encoding-aes-key", next)
	p.Control("POST", "component", map[string]string{"encoding_aes_key": next, "previous_encoding_aes_key": sandbox.DefaultEncodingAESKey}, nil)
	p.Control("POST", "settings", map[string]bool{"use_previous_key": true}, nil)
	p.Hold(false)

	var active *world.Answer
	p.Eventually("the store turns active", func() error {
		if active = p.client.Do("GET", "/v1/stores/"+created.Get("id"), nil); active.Get("status") != "active" || active.Get("name") == "null" {
			return fmt.Errorf("%s", active.Body)
		}
		return nil
	})
	if active.Get("audit", "status") != "approved" || active.Get("poi_id") == "null" {
		t.Errorf("store: %s", active.Body)
	}

	// Once more, under the new key: the plaintext is the same.
	p.Control("POST", "settings", map[string]bool{"use_previous_key": false}, nil)
	var list struct {
		Pushes []struct {
			ID           int64
			Name, Status string
		}
	}
	audits := func() (id int64, delivered int) {
		p.Control("GET", "pushes", nil, &list)
		for _, push := range list.Pushes {
			if push.Name == "add_store_audit_info" {
				id = push.ID
				if push.Status == "delivered" {
					delivered++
				}
			}
		}
		return id, delivered
	}
	id, n := audits()
	if n != 1 {
		t.Fatalf("%d pushes of the audit were delivered, want 1", n)
	}
	p.Control("POST", fmt.Sprintf("pushes/%d/copies", id), map[string]int{"n": 2}, nil)
	p.Eventually("the copies are delivered", func() error {
		if _, n := audits(); n != 3 {
			return fmt.Errorf("%d delivered", n)
		}
		return nil
	})
	for what, sql := range map[string]string{
		"pushes kept":         `SELECT 1 FROM event_inbox WHERE event = 'add_store_audit_info'`,
		"decisions":           `SELECT 1 FROM audit_history WHERE status = 'approved'`,
		"activations told":    `SELECT 1 FROM outbox WHERE type = 'store.activated'`,
		"poi_ids by event":    `SELECT 1 FROM wechat_id_ledger WHERE id_type = 'poi_id' AND source = 'event'`,
		"stores of the place": `SELECT 1 FROM resources WHERE map_poi_id IS NOT NULL AND operation_id IS NOT NULL`,
	} {
		if n := len(p.Query(sql)); n != 1 {
			t.Errorf("%s: %d, want 1", what, n)
		}
	}
	if again := p.client.Do("GET", "/v1/stores/"+created.Get("id"), nil).Want(http.StatusOK); again.Header.Get("ETag") != active.Header.Get("ETag") {
		t.Errorf("the repeated push changed the store: %s, was %s", again.Header.Get("ETag"), active.Header.Get("ETag"))
	}
}
