package isolation

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

type object = map[string]any

// everything uses a gateway as its callers, browsers, operators and WeChat do,
// and lets go wrong what can. It returns the path of a store.
func everything(t *testing.T, w *world.World, g *world.Gateway, c *world.Client) string {
	t.Helper()
	// As it should be: reads, a store with its audit, keys, links, the operator.
	for _, path := range []string{"/v1/me", "/v1/merchants", "/v1/merchants/" + c.Merchant, "/v1/districts?level=province", "/v1/categories?scheme=store_program",
		"/v1/map-pois?keyword=x&district_id=440105", "/v1/stores?source=live&limit=2", "/v1/audits", "/v1/operations", "/v1/api-keys"} {
		c.Do("GET", path, nil).Want(http.StatusOK)
	}
	created := c.Do("POST", "/v1/stores", world.DocumentsStore(), "Idempotency-Key", "canary").Want(http.StatusAccepted)
	store := "/v1/stores/" + created.Get("id")
	w.Eventually("the store turns active", func() error {
		if a := c.Do("GET", store, nil); a.Get("status") != "active" || a.Get("name") == "null" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	c.Do("PATCH", store, object{"contact_phone": "020-7654321"}).Want(http.StatusOK)
	c.Do("PATCH", "/v1/merchants/"+c.Merchant, object{"metadata": object{"note": onPurpose}}).Want(http.StatusOK)
	c.Do("POST", "/v1/merchants/"+c.Merchant+"/token-refreshes", nil).Want(http.StatusOK)
	c.Do("POST", "/v1/merchants/sync", nil).Want(http.StatusAccepted)
	key := c.Do("POST", "/v1/api-keys", object{"name": "one", "scopes": []string{"stores:read"}}).Want(http.StatusCreated)
	c.Do("POST", "/v1/api-keys/"+key.Get("id")+"/rotations", object{"overlap": "PT0S"}).Want(http.StatusCreated)
	c.Do("GET", "/v1/stores", nil, "Authorization", "Bearer "+key.Get("token"))
	admin := c.As(w.AdminKey()).For("")
	for _, path := range []string{"/v1/admin/tenants", "/v1/admin/tenants/" + w.Tenant.ID, "/v1/admin/tenants/" + w.Tenant.ID + "/health", "/v1/admin/operations", "/v1/admin/changes"} {
		admin.Do("GET", path, nil).Want(http.StatusOK)
	}
	admin.Do("PUT", "/v1/admin/tenants/"+w.Tenant.ID+"/component-credentials", object{"component_secret": canaries.Secret,
		"message_token": canaries.MessageToken, "encoding_aes_key": canaries.EncodingAESKey}).Want(http.StatusOK)
	admin.Do("PUT", "/v1/admin/tenants/"+w.Tenant.ID+"/component-credentials", object{"component_secret": canaries.Secret,
		"message_token": canaries.MessageToken, "encoding_aes_key": canaries.EncodingAESKey + "x"}).WantProblem(http.StatusUnprocessableEntity, "validation_failed")
	admin.Do("POST", "/v1/admin/tenants/"+w.Tenant.ID+"/ticket-restarts", nil).Want(http.StatusAccepted)

	// Secrets where callers put them by mistake, or on purpose.
	for _, path := range []string{"/v1/me?access_token=" + w.Key, "/v1/stores?api_key=" + w.Key, "/v1/stores/" + w.Key, "/v1/merchants?appid=" + w.Key, "/v1/" + w.Key} {
		c.Do("GET", path, nil)
	}
	c.Do("GET", "/v1/me", nil, "Authorization", "Basic "+w.Key)
	c.Do("GET", "/v1/me", nil, "Authorization", "Bearer "+w.Key[:len(w.Key)-3]+"AAA")
	c.Do("GET", "/v1/me", nil, "Traceparent", w.Key, "Accept-Language", w.Key, "Origin", "https://"+w.Key)
	c.Do("POST", "/v1/stores", `{"contact_phone":"`+w.Key+`","access_token":"`+w.Key+`"}`)
	c.Do("POST", "/v1/stores", `{"`+w.Key+`":1,"`+w.Key+`":2}`)
	c.Do("POST", "/v1/stores", world.DocumentsStore(), "Idempotency-Key", w.Key[:200])
	c.Do("GET", "/v1/audits?cursor="+strings.ReplaceAll(w.Key, ".", "-")[:300], nil)
	link := c.Do("POST", "/v1/authorization-links", object{"expected_appid": sandbox.DemoMiniProgram}).Want(http.StatusCreated)
	callback := strings.TrimPrefix(link.Get("url"), w.PublicURL) + "/callback"
	for _, path := range []string{callback, callback + "?auth_code=queryauthcode@@@CANARYmadeup&expires_in=3600", callback + "?auth_code=" + strings.Repeat("CANARY", 2000),
		"/connect/CANARYstateCANARYstateCANARYstateCANARYstate/callback?auth_code=queryauthcode@@@CANARYmadeup", "/connect/" + w.Key} {
		c.Do("GET", path, nil)
	}

	// What WeChat may do: refuse every credential in turn, answer with secrets
	// in its messages, hang up.
	const leaky = `{"errcode":47001,"errmsg":"bad refresh_token=refreshtoken@@@CANARYerrmsg access_token=CANARYerrmsgtoken component_access_token: CANARYerrmsgtoken rid: 1-2-3"}`
	live := "/v1/stores?source=live"
	for _, fault := range []struct {
		path string
		what object
	}{
		{"wxa/get_store_list", object{"body": leaky}},
		{"wxa/get_store_list", object{"errcode": -1, "errmsg": "system error access_token=CANARYerrmsgtoken"}},
		{"wxa/get_store_list", object{"http_status": 502, "body": "<html>access_token=CANARYerrmsgtoken</html>"}},
		{"wxa/get_store_list", object{"body": "access_token=CANARYerrmsgtoken"}},
		{"wxa/get_store_list", object{"drop_reply": true}},
		{"wxa/get_store_list", object{"truncate_to": 10}},
	} {
		w.Fault(fault.path, 1, fault.what)
		c.Do("GET", live, nil)
	}
	for _, path := range []string{"api_authorizer_token", "api_component_token", "api_get_authorizer_info"} {
		w.Control("POST", "credentials", object{"expire_access_tokens": "all"}, nil)
		w.Fault("cgi-bin/component/"+path, 1, object{"body": leaky})
		c.Do("GET", live, nil)
		c.Do("POST", "/v1/merchants/"+c.Merchant+"/token-refreshes", nil)
		w.Control("DELETE", "faults", nil, nil)
		w.Eventually("reads again", func() error {
			if a := c.Do("GET", live, nil); a.Status != http.StatusOK {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
	}
	w.Control("POST", "credentials", object{"expire_access_tokens": "all", "invalidate_refresh_token": sandbox.DemoOfficialAccount, "reject_ticket": "newest"}, nil)
	w.Eventually("reads again", func() error {
		if a := c.Do("GET", live, nil); a.Status != http.StatusOK {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	w.Fault("wxa/add_store", 1, object{"body": leaky})
	c.Do("POST", "/v1/stores", w.NewStore(3))
	w.Fault("wxa/add_store", 1, object{"drop_reply": true})
	c.Do("POST", "/v1/stores", w.NewStore(4))
	// Goods and the Store Mini Program, in words that nobody should repeat.
	goodsOf := c.For(w.Authorize(g, sandbox.DemoMiniProgram))
	program := "/v1/merchants/" + c.Merchant + "/store-program"
	item := object{"name": "Tea", "cover_media_id": "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR", "path": "pages/index/index",
		"pricing": object{"type": "fixed", "amount": "9.50"}}
	made := goodsOf.Do("POST", "/v1/goods", item).Want(http.StatusAccepted)
	c.Do("PATCH", program, object{"introduction": "Tea and more"}).Want(http.StatusOK)
	for _, call := range []struct {
		at           string // of WeChat
		client       *world.Client
		method, path string
		body         any
	}{
		{"wxa/business/getgoodswarehouse", goodsOf, "GET", "/v1/goods/" + made.Get("id") + "?source=live", nil},
		{"wxaapi/broadcast/goods/getapproved", goodsOf, "GET", "/v1/goods?source=live&status=approved", nil},
		{"wxaapi/broadcast/goods/resetaudit", goodsOf, "POST", "/v1/audits/" + made.Get("audit", "id") + "/withdrawal", nil},
		{"wxaapi/broadcast/goods/add", goodsOf, "POST", "/v1/goods", item},
		{"cgi-bin/openapi/quota/get", goodsOf, "POST", "/v1/quotas/sync", nil},
		{"wxa/get_merchant_audit_info", c, "GET", program + "?source=live", nil},
		{"wxa/modify_merchant", c, "PATCH", program, object{"introduction": "More and tea"}},
	} {
		w.Fault(call.at, 1, object{"body": leaky})
		if a := call.client.Do(call.method, call.path, call.body); a.Status < 400 && a.Status != http.StatusAccepted {
			t.Errorf("%s %s: %d %s", call.method, call.path, a.Status, a.Body)
		}
	}
	// A job that fails, and is kept with its error.
	w.Fault("cgi-bin/component/api_query_auth", 1, object{"body": leaky})
	w.Control("POST", "accounts/"+sandbox.LeavingAccount+"/authorize", nil, nil)
	w.Eventually("the merchant comes at the second try", func() error {
		if a := c.For("").Do("GET", "/v1/merchants/"+sandbox.LeavingAccount, nil); a.Get("status") != "authorized" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	// An event whose name is text of its sender's, and pushes that are none.
	w.Control("POST", "messages", object{"appid": sandbox.DemoOfficialAccount, "name": "on purpose", "xml": strings.Replace(storeEvent("gh_x", "1", "0", 1), "add_store_audit_info", onPurpose, 1)}, nil)
	w.Eventually("the event is logged", func() error {
		if !strings.Contains(g.Output(), onPurpose) {
			return fmt.Errorf("not in %d bytes", len(g.Output()))
		}
		return nil
	})
	p := sealPush(t, canaries, componentEvent(canaries.AppID, "component_verify_ticket", `<ComponentVerifyTicket>ticket@@@CANARYmadeup</ComponentVerifyTicket>`))
	p.query.Set("msg_signature", strings.Repeat("0", 40))
	p.to(c, w.Tenant.Ref+"/component").Want(http.StatusForbidden)

	return store
}

// nowhere uses a gateway that finds nobody where WeChat should be.
func nowhere(t *testing.T, w *world.World, c *world.Client, store string) {
	t.Helper()
	c.Do("GET", "/v1/stores?source=live", nil).WantProblem(http.StatusBadGateway, "wechat_unreachable")
	w.Control("POST", "credentials", object{"expire_access_tokens": "all"}, nil)
	c.Do("POST", "/v1/merchants/"+c.Merchant+"/token-refreshes", nil)
	c.Do("GET", "/v1/merchants/"+c.Merchant, nil)
	c.Do("POST", "/v1/stores", w.NewStore(5))
	c.Do("PATCH", store, object{"contact_phone": "020-1234567"})
	c.Do("POST", "/v1/merchants/sync", nil)
	link := c.Do("POST", "/v1/authorization-links", object{}).Want(http.StatusCreated)
	c.Do("POST", strings.TrimPrefix(link.Get("url"), w.PublicURL), "page=computer", "Content-Type", "application/x-www-form-urlencoded")
}

// timeouts makes calls that WeChat answers after the gateway gave up: a read,
// a write, a token.
func timeouts(t *testing.T, w *world.World, c *world.Client) *sync.WaitGroup {
	t.Helper()
	w.Fault("wxa/get_store_info", 1, object{"delay_ms": 10_500})
	w.Fault("wxa/search_map_poi", 1, object{"delay_ms": 10_500, "before": false})
	w.Fault("wxa/update_store", 1, object{"delay_ms": 10_500})
	w.Fault("cgi-bin/component/api_create_preauthcode", 1, object{"delay_ms": 5_500})
	list := c.Do("GET", "/v1/stores?status=active&limit=1", nil).Want(http.StatusOK)
	link := c.Do("POST", "/v1/authorization-links", object{}).Want(http.StatusCreated)
	var all sync.WaitGroup
	for _, call := range []struct {
		method, path string
		body         any
	}{
		{"GET", "/v1/stores/" + list.Get("data", "0", "id") + "?source=live", nil},
		{"GET", "/v1/map-pois?keyword=slow&district_id=440105", nil},
		{"PATCH", "/v1/stores/" + list.Get("data", "0", "id"), object{"contact_phone": "020-11112222", "business_hours": object{"open": "08:00", "close": "20:00"}}},
		{"POST", strings.TrimPrefix(link.Get("url"), w.PublicURL), "page=phone"},
	} {
		all.Go(func() {
			a, err := c.Try(call.method, call.path, call.body)
			if err != nil || a.Status < 500 && a.Status != http.StatusAccepted {
				t.Errorf("a call that WeChat didn't answer in time: %v, %+v", err, a)
			}
		})
	}
	return &all
}

var (
	// What members of WeChat's requests and replies hold.
	secretMember = regexp.MustCompile(`\\?"(component_verify_ticket|component_access_token|access_token|authorizer_access_token|authorizer_refresh_token|refresh_token|pre_auth_code|authorization_code)\\?":\s*\\?"([^"\\]+)`)
	secretInURL  = regexp.MustCompile(`(component_access_token|access_token)=([^&"\\]+)`)
	// The simulator's look like WeChat's.
	secretLook = regexp.MustCompile(`(ticket|queryauthcode|preauthcode|refreshtoken)@@@[A-Za-z0-9_-]+`)
	jwtLook    = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`)
	stateLook  = regexp.MustCompile(`/connect/([A-Za-z0-9_-]{43})`)
	cookieLook = regexp.MustCompile(`gwauth=([A-Za-z0-9_-]{20,})`)
)

var secretNames = map[string]string{
	"component_verify_ticket": "ticket", "component_access_token": "component token", "access_token": "authorizer token",
	"authorizer_access_token": "authorizer token", "authorizer_refresh_token": "refresh token", "refresh_token": "refresh token",
	"pre_auth_code": "pre_auth_code", "authorization_code": "authorization code",
	"ticket": "ticket", "queryauthcode": "authorization code", "preauthcode": "pre_auth_code", "refreshtoken": "refresh token",
}

// secretsOf are all secrets of a world that has lived: what was chosen, what
// WeChat gave out, there and in further simulators, and what the gateway made.
func secretsOf(t *testing.T, rec *recorder, w *world.World, further ...*world.World) []canary {
	t.Helper()
	seen := map[canary]bool{{"secret in WeChat's words", "CANARYerrmsg"}: true, {"authorization code", "CANARYmadeup"}: true}
	for _, c := range []world.Component{w.Component, componentB} {
		seen[canary{"component secret", c.Secret}] = true
		seen[canary{"message token", c.MessageToken}] = true
		seen[canary{"EncodingAESKey", c.EncodingAESKey}] = true
	}
	wire := ""
	for _, sim := range append(further, w) {
		var journal, pushes json.RawMessage
		sim.Control("GET", "journal", nil, &journal)
		sim.Control("GET", "pushes", nil, &pushes)
		wire += string(journal) + string(pushes)
	}
	for _, m := range append(secretMember.FindAllStringSubmatch(wire, -1), secretInURL.FindAllStringSubmatch(wire, -1)...) {
		if value := m[2]; len(value) >= 12 {
			seen[canary{secretNames[m[1]], value}] = true
		}
	}
	for _, m := range secretLook.FindAllStringSubmatch(wire, -1) {
		seen[canary{secretNames[m[1]], m[0]}] = true
	}
	replies := w.Output.String() + rec.all()
	for _, token := range jwtLook.FindAllString(replies, -1) {
		seen[canary{"API key", token}] = true
		seen[canary{"API key", token[strings.LastIndexByte(token, '.')+1:]}] = true // what makes it one
	}
	for _, m := range stateLook.FindAllStringSubmatch(replies, -1) {
		seen[canary{"state of a link", m[1]}] = true
	}
	for _, m := range cookieLook.FindAllStringSubmatch(replies, -1) {
		seen[canary{"browser's cookie", m[1]}] = true
	}
	for _, value := range keysetSecrets(t, w.Env["GATEWAY_KEYSET_FILE"]) {
		seen[canary{"keyset", value}] = true
	}
	var out []canary
	for s := range seen {
		out = append(out, s)
	}
	return out
}

// known fails the test where of some kind no secret is known: nothing would be
// looked for.
func known(t *testing.T, secrets []canary, kinds ...string) {
	t.Helper()
	for _, what := range kinds {
		if !slices.ContainsFunc(secrets, func(s canary) bool { return s.what == what && len(s.value) >= 12 }) {
			t.Errorf("no %s is known: nothing would be looked for", what)
		}
	}
}

func keysetSecrets(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var keyset struct {
		Key []struct{ KeyData struct{ Value string } }
	}
	if err := json.Unmarshal(content, &keyset); err != nil || len(keyset.Key) == 0 {
		t.Fatalf("keyset: %v", err)
	}
	var out []string
	for _, k := range keyset.Key {
		raw, err := base64.StdEncoding.DecodeString(k.KeyData.Value)
		if err != nil || len(raw) < 32 {
			t.Fatalf("keyset: %d bytes, %v", len(raw), err)
		}
		out = append(out, k.KeyData.Value, string(raw[len(raw)-32:])) // with what is around the key, and the key
	}
	return out
}
