package tenant

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

func ptr[T any](v T) *T { return &v }

func TestTenantLife(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	made, err := b.tenants.Create(ctx, cli, NewTenant{
		Name: "Demo", ComponentAppID: "wx0000000000000001", ReturnURLAllowList: []string{"https://shop.example/done"}, CORSOrigins: []string{"https://shop.example"},
		Limits: Limits{KeyBurst: ptr(7)},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Details{Tenant: Tenant{
		ID: made.ID, Ref: made.Ref, Name: "Demo", ComponentAppID: "wx0000000000000001", Status: Active, ReturnURLAllowList: []string{"https://shop.example/done"},
		CORSOrigins: []string{"https://shop.example"}, Limits: Limits{KeyBurst: ptr(7)}, CreatedAt: made.CreatedAt, UpdatedAt: made.UpdatedAt,
	}}
	if d := cmp.Diff(want, made); d != "" || len(made.Ref) != 26 {
		t.Errorf("Create (-want +got), ref %q:\n%s", made.Ref, d)
	}
	got, err := b.tenants.Get(ctx, made.ID)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("Get: %v (-want +got):\n%s", err, d)
	}
	got, err = b.tenants.Update(ctx, cli, made.ID, Update{Name: ptr("Renamed"), ReleaseCheck: ptr(true), CORSOrigins: &[]string{}, ComponentAppID: ptr("wx00000000000000ff"), Limits: &Limits{}})
	if err != nil {
		t.Fatal(err)
	}
	want.Name, want.ReleaseCheck, want.CORSOrigins, want.ComponentAppID, want.Limits, want.UpdatedAt = "Renamed", true, []string{}, "wx00000000000000ff", Limits{}, got.UpdatedAt
	if d := cmp.Diff(want, got); d != "" || !got.UpdatedAt.After(made.UpdatedAt) {
		t.Errorf("Update (-want +got):\n%s", d)
	}
	stale := problem.New(problem.PreconditionFailed, "version_conflict")
	refuse := func(d Details) error {
		if d.Name != "Renamed" {
			t.Errorf("the precondition saw %q", d.Name)
		}
		return stale
	}
	_, err = b.tenants.Update(ctx, cli, made.ID, Update{Name: ptr("x"), Precondition: refuse})
	wantCode(t, "Update against a stale version", err, "version_conflict")
	wantCode(t, "Delete against a stale version", b.tenants.Delete(ctx, cli, made.ID, refuse), "version_conflict")

	b.merchant(t, made.ID, "wx00000000000000a1")
	_, err = b.tenants.Update(ctx, cli, made.ID, Update{ComponentAppID: ptr("wx00000000000000fe")})
	if d := cmp.Diff([]string{"/component_appid not_changeable"}, pointers(err)); d != "" {
		t.Errorf("another appid after the first merchant (-want +got):\n%s", d)
	}
	for range 2 {
		if err := b.tenants.Delete(ctx, cli, made.ID, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, err = b.tenants.Get(ctx, made.ID); err != nil || got.Status != Deleted {
		t.Errorf("Get of a deleted one = %s, %v", got.Status, err)
	}
	_, err = b.tenants.Update(ctx, cli, made.ID, Update{Status: ptr(Active)})
	wantCode(t, "Update of a deleted one", err, "not_found")
	_, err = b.tenants.SetCredentials(ctx, cli, made.ID, NewCredentials{text("s"), text("tok"), text(aesKey)})
	wantCode(t, "SetCredentials of a deleted one", err, "not_found")
	_, _, err = b.keys.Issue(ctx, CLI(made.ID), NewKey{Name: "x", Scopes: []string{"*"}})
	wantCode(t, "Issue for a deleted one", err, "not_found")
	// Its name and its platform are free again.
	b.tenant(t, "Renamed", "wx00000000000000ff")

	none := uuid.New()
	_, err = b.tenants.Get(ctx, none)
	wantCode(t, "Get of none", err, "not_found")
	_, err = b.tenants.Update(ctx, cli, none, Update{Name: ptr("x")})
	wantCode(t, "Update of none", err, "not_found")
	wantCode(t, "Delete of none", b.tenants.Delete(ctx, cli, none, nil), "not_found")
}

func TestTenantNamesAndAppIDsAreUnique(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tenant(t, "a", "wx0000000000000001")
	other := b.tenant(t, "b", "wx0000000000000002")
	_, err := b.tenants.Create(t.Context(), cli, NewTenant{Name: "a", ComponentAppID: "wx0000000000000003"})
	wantCode(t, "Create with a taken name", err, "name_taken")
	_, err = b.tenants.Create(t.Context(), cli, NewTenant{Name: "c", ComponentAppID: "wx0000000000000001"})
	wantCode(t, "Create with a taken appid", err, "component_appid_taken")
	_, err = b.tenants.Update(t.Context(), cli, other, Update{Name: ptr("a")})
	wantCode(t, "Update to a taken name", err, "name_taken")
	_, err = b.tenants.Update(t.Context(), cli, other, Update{ComponentAppID: ptr("wx0000000000000001")})
	wantCode(t, "Update to a taken appid", err, "component_appid_taken")

	var mu sync.Mutex
	codes := map[string]int{}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			_, err := b.tenants.Create(t.Context(), cli, NewTenant{Name: fmt.Sprint("race", i), ComponentAppID: "wx00000000000000cc"})
			mu.Lock()
			codes[code(err)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if d := cmp.Diff(map[string]int{"": 1, "component_appid_taken": 5}, codes); d != "" {
		t.Errorf("six at once (-want +got):\n%s", d)
	}
}

func TestTenantRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	long := strings.Repeat("x", 101)
	for _, tc := range []struct {
		name string
		new  NewTenant
		at   []string
	}{
		{"no name", NewTenant{ComponentAppID: "wx0000000000000001"}, []string{"/name required"}},
		{"long name", NewTenant{Name: long, ComponentAppID: "wx0000000000000001"}, []string{"/name too_long"}},
		{"no appid", NewTenant{Name: "x"}, []string{"/component_appid invalid"}},
		{"upper-case appid", NewTenant{Name: "x", ComponentAppID: "wx000000000000000A"}, []string{"/component_appid invalid"}},
		{"short appid", NewTenant{Name: "x", ComponentAppID: "wx1"}, []string{"/component_appid invalid"}},
		{"limits", NewTenant{Name: "x", ComponentAppID: "wx0000000000000001", Limits: Limits{KeyBurst: ptr(0)}}, []string{"/limits/key_burst too_small"}},
		{"51 origins", NewTenant{Name: "x", ComponentAppID: "wx0000000000000001", CORSOrigins: slicesRepeat("https://a.example", 51)}, []string{"/cors_origins too_many"}},
		{"credentials", NewTenant{Name: "x", ComponentAppID: "wx0000000000000001", Credentials: &NewCredentials{MessageToken: text("a-b"), EncodingAESKey: text("short")}},
			[]string{"/component_secret required", "/message_token invalid", "/encoding_aes_key invalid"}},
	} {
		_, err := b.tenants.Create(t.Context(), cli, tc.new)
		if d := cmp.Diff(tc.at, pointers(err)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
		if err != nil && strings.Contains(err.Error(), "a-b") {
			t.Errorf("%s: the error shows what was given: %v", tc.name, err)
		}
	}
}

func slicesRepeat(s string, n int) []string {
	return strings.Split(strings.TrimSuffix(strings.Repeat(s+" ", n), " "), " ")
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		origin           string
		dev, prod, asURL bool // allowed as an origin elsewhere, in production; as a return URL elsewhere
	}{
		{"https://shop.example", true, true, true},
		{"https://shop.example:8443", true, true, true},
		{"https://xn--nqv7f.example", true, true, true},
		{"http://localhost", true, false, true},
		{"http://localhost:5173", true, false, true},
		{"http://app.localhost:5173", true, false, true},
		{"http://127.0.0.1:5173", true, false, true},
		{"http://[::1]:5173", true, false, true},
		{"https://shop.example/done", false, false, true},
		{"https://shop.example/", false, false, true},
		{"https://shop.example/a/b/", false, false, true},
		{"https://shop.example/a/../b", false, false, false},
		{"https://shop.example//a", false, false, false},
		{"https://shop.example/a%2fb", false, false, false},
		{`https://shop.example/\a`, false, false, false},
		{"http://shop.example", false, false, false},
		{"http://localhost.evil.example", false, false, false},
		{"https://*.example", false, false, false},
		{"https://shop.example:443", false, false, false},
		{"https://shop.example:", false, false, false},
		{"https://shop.example:0", false, false, false},
		{"https://shop.example:99999", false, false, false},
		{"https://Shop.example", false, false, false},
		{"https://门店.example", false, false, false},
		{"https://user@shop.example", false, false, false},
		{"https://shop.example?x", false, false, false},
		{"https://shop.example#x", false, false, false},
		{"HTTPS://shop.example", false, false, false},
		{"ftp://shop.example", false, false, false},
		{"shop.example", false, false, false},
		{"*", false, false, false},
		{"null", false, false, false},
		{"", false, false, false},
	} {
		if got := checkOrigin(tc.origin, false) == nil; got != tc.dev {
			t.Errorf("checkOrigin(%q) allows %v, want %v", tc.origin, got, tc.dev)
		}
		if got := checkOrigin(tc.origin, true) == nil; got != tc.prod {
			t.Errorf("checkOrigin(%q) in production allows %v, want %v", tc.origin, got, tc.prod)
		}
		if got := checkReturnURL(tc.origin, false) == nil; got != tc.asURL {
			t.Errorf("checkReturnURL(%q) allows %v, want %v", tc.origin, got, tc.asURL)
		}
	}
}

// Attack 72.
func TestReturnURL(t *testing.T) {
	t.Parallel()
	ten := Tenant{ReturnURLAllowList: []string{"https://good.com", "https://path.com/app", "http://localhost:3000"}}
	for raw, want := range map[string]bool{
		"https://good.com":                              true,
		"https://good.com/":                             true,
		"https://good.com/a/b?x=1":                      true,
		"https://path.com/app":                          true,
		"https://path.com/app/done":                     true,
		"http://localhost:3000/x":                       true,
		"https://path.com/":                             false,
		"https://path.com/apple":                        false,
		"https://path.com/app/../x":                     false,
		"https://path.com/app/%2e%2e/x":                 false,
		"https://good.com.evil.com":                     false,
		"https://good.com@evil":                         false,
		"https://evil@good.com":                         false,
		"https://good.com:8443":                         false,
		"http://good.com":                               false,
		"//evil":                                        false,
		`/\evil`:                                        false,
		`https://good.com\@evil.com`:                    false,
		"https://good.com/%0d%0aSet-Cookie:":            false,
		"https://good.com/\r\nx":                        false,
		"https:good.com":                                false,
		"javascript:alert(1)":                           false,
		"https://good.com//evil":                        false,
		"https://good.com/" + strings.Repeat("a", 3000): false,
		"": false,
	} {
		if got, ok := ten.ReturnURL(raw); ok != want || ok && got != raw {
			t.Errorf("ReturnURL(%q) = %q, %v, want %v", raw, got, ok, want)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	b := setup(t)
	far := process(t, b.db, b.keyset)
	ctx := t.Context()
	d, err := b.tenants.Create(ctx, cli, NewTenant{Name: "a", ComponentAppID: "wx0000000000000001"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = far.tenants.Credentials(ctx, d.ID)
	wantCode(t, "Credentials before any were set", err, "not_found")
	_, err = b.tenants.SetCredentials(ctx, cli, d.ID, NewCredentials{MessageToken: text("first")})
	if got := pointers(err); len(got) != 2 {
		t.Errorf("a first call that leaves two out = %v", err)
	}
	otherKey := strings.Repeat("B", 43)
	set := func(n NewCredentials) Fingerprints {
		t.Helper()
		f, err := b.tenants.SetCredentials(ctx, cli, d.ID, n)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	check := func(what, wantSecret string, wantTokens []string, wantKeys ...string) {
		t.Helper()
		var keys []msgcrypt.Key
		for _, k := range wantKeys {
			key, err := msgcrypt.ParseKey(k)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
		eventually(t, what, func() bool {
			c, err := far.tenants.Credentials(ctx, d.ID)
			if err != nil {
				t.Fatal(err)
			}
			var tokens []string
			for _, tok := range c.MessageTokens {
				tokens = append(tokens, tok.Reveal())
			}
			same := len(keys) == len(c.Keys)
			for i := range min(len(keys), len(c.Keys)) {
				same = same && c.Keys[i].Encrypt([16]byte{}, nil, "x") == keys[i].Encrypt([16]byte{}, nil, "x")
			}
			return c.AppID == "wx0000000000000001" && c.Secret.Reveal() == wantSecret && cmp.Equal(tokens, wantTokens) && same
		})
	}
	first := NewCredentials{text("s1"), text("token1"), text(aesKey)}
	f := set(first)
	if f.Secret.SHA256Prefix != "e8bc163c" || f.PreviousMessageToken != nil {
		t.Errorf("fingerprints = %+v", f)
	}
	check("the first", "s1", []string{"token1"}, aesKey)
	if again := set(first); again != f {
		t.Errorf("the same again = %+v, want %+v", again, f)
	}
	check("the same again moves nothing", "s1", []string{"token1"}, aesKey)
	f2 := set(NewCredentials{text("s2"), text("token2"), text(otherKey)})
	if *f2.PreviousMessageToken != f.MessageToken || *f2.PreviousEncodingAESKey != f.EncodingAESKey || f2.Secret == f.Secret {
		t.Errorf("fingerprints after a change = %+v", f2)
	}
	check("changed", "s2", []string{"token2", "token1"}, otherKey, aesKey)
	set(NewCredentials{EncodingAESKey: text(aesKey)})
	check("the key alone", "s2", []string{"token2", "token1"}, aesKey, otherKey)
	got, err := b.tenants.Get(ctx, d.ID)
	if err != nil || got.Credentials.EncodingAESKey.SHA256Prefix != f.EncodingAESKey.SHA256Prefix {
		t.Errorf("Get shows %+v, %v", got.Credentials, err)
	}
	_, err = b.tenants.SetCredentials(ctx, cli, uuid.New(), first)
	wantCode(t, "SetCredentials of none", err, "not_found")
	_, err = far.tenants.Credentials(ctx, uuid.New())
	wantCode(t, "Credentials of none", err, "not_found")
}

// Attack 83: a ciphertext moved to another tenant's row, or another column, is worth nothing.
func TestSealedCredentialsDontMove(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a, z := b.tenant(t, "a", "wx0000000000000001"), b.tenant(t, "z", "wx0000000000000002")
	read := func(tenant uuid.UUID) (ct []byte) {
		if err := b.db.InTenant(t.Context(), tenant, func(tx postgres.DBTX) error {
			return tx.QueryRow(t.Context(), `SELECT component_secret_ct FROM component_credentials WHERE tenant_id = $1`, tenant).Scan(&ct)
		}); err != nil {
			t.Fatal(err)
		}
		return ct
	}
	stolen := read(a)
	for _, column := range []string{"component_secret_ct", "message_token_ct"} {
		if err := b.db.InTenant(t.Context(), z, func(tx postgres.DBTX) error {
			_, err := tx.Exec(t.Context(), `UPDATE component_credentials SET `+column+` = $2 WHERE tenant_id = $1`, z, stolen)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		fresh := deafProcess(b.db, b.keyset)
		_, err := fresh.tenants.Credentials(t.Context(), z)
		if wantCode(t, column+" of another tenant", err, "secret_unavailable"); !errors.Is(err, secret.ErrSealed) {
			t.Errorf("%s of another tenant: %v, want ErrSealed", column, err)
		}
	}
}

// The same for signing keys: neither another row's key nor a key that somebody
// without the keyset wrote there is ever used.
func TestPlantedSigningKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, sql := range map[string]string{
		"public part replaced": `UPDATE signing_keys SET public_key = '\x00' WHERE state = 'active'`,
		"moved":                `UPDATE signing_keys SET private_key_ct = (SELECT private_key_ct FROM signing_keys WHERE state = 'active') WHERE state = 'next'`,
		"planted":              `INSERT INTO signing_keys (id, public_key, private_key_ct, state) VALUES ('sig_evil', '\x00', '\x00', 'retiring')`,
	} {
		undo := fmt.Errorf("undo")
		err := b.db.InSystem(t.Context(), func(tx postgres.DBTX) error {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				return err
			}
			rows, err := b.keys.q.SigningKeyList(t.Context(), tx)
			if err != nil {
				return err
			}
			if _, err := b.keys.openRing(rows); err == nil {
				t.Errorf("%s: the ring was opened", name)
			}
			return undo
		})
		if !errors.Is(err, undo) {
			t.Fatal(err)
		}
	}
}

func TestHotReads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	far := process(t, b.db, b.keyset)
	ctx := t.Context()
	d, err := b.tenants.Create(ctx, cli, NewTenant{
		Name: "a", ComponentAppID: "wx0000000000000001", CORSOrigins: []string{"https://shop.example"}, Limits: Limits{RequestsPerSecond: ptr(5.0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := far.tenants.ByPushRef(ctx, d.Ref)
	if err != nil || got.ID != d.ID {
		t.Errorf("ByPushRef = %v, %v", got.ID, err)
	}
	for _, ref := range []string{"", "x", strings.ToUpper(d.Ref), strings.Repeat("a", 26), d.Ref + "\n"} {
		_, err := far.tenants.ByPushRef(ctx, ref)
		wantCode(t, fmt.Sprintf("ByPushRef(%q)", ref), err, "not_found")
	}
	_, err = far.tenants.Tenant(ctx, uuid.New())
	wantCode(t, "Tenant of none", err, "not_found")
	eventually(t, "the origin is known", func() bool { return far.tenants.AllowedOrigin(ctx, "https://shop.example") })
	for _, origin := range []string{"https://shop.example.evil", "https://shop.example:8443", "http://shop.example", "", "null"} {
		if far.tenants.AllowedOrigin(ctx, origin) {
			t.Errorf("AllowedOrigin(%q)", origin)
		}
	}
	if l := far.tenants.Limits(ctx, d.ID); !cmp.Equal(l, Limits{RequestsPerSecond: ptr(5.0)}) {
		t.Errorf("Limits = %+v, want 5 requests a second", l)
	}
	if l := far.tenants.Limits(ctx, uuid.New()); !cmp.Equal(l, Limits{}) {
		t.Errorf("Limits of none = %+v", l)
	}
	if !got.AllowsOrigin("https://shop.example") || got.AllowsOrigin("https://other.example") {
		t.Errorf("AllowsOrigin of %v", got.CORSOrigins)
	}
	if _, err := b.tenants.Update(ctx, cli, d.ID, Update{Status: ptr(Suspended)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a suspended tenant's origin is refused", func() bool { return !far.tenants.AllowedOrigin(ctx, "https://shop.example") })
	eventually(t, "and its pushes are taken", func() bool {
		got, err := far.tenants.ByPushRef(ctx, d.Ref)
		return err == nil && got.Status == Suspended
	})
	if err := b.tenants.Delete(ctx, cli, d.ID, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a deleted tenant's ref is gone", func() bool {
		_, err := far.tenants.ByPushRef(ctx, d.Ref)
		return code(err) == "not_found"
	})
}

func TestListTenants(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var ids []uuid.UUID
	for i := range 3 {
		ids = append(ids, b.tenant(t, fmt.Sprint(i), fmt.Sprintf("wx%016x", i)))
	}
	if err := b.tenants.Delete(t.Context(), cli, ids[1], nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		f    Filter
		p    Page
		want []uuid.UUID
		more bool
	}{
		{"all", Filter{}, Page{Limit: 3}, []uuid.UUID{ids[2], ids[1], ids[0]}, false},
		{"the first page", Filter{}, Page{Limit: 2}, []uuid.UUID{ids[2], ids[1]}, true},
		{"the second page", Filter{}, Page{Limit: 2, Before: &ids[1]}, []uuid.UUID{ids[0]}, false},
		{"by status", Filter{Status: Deleted}, Page{Limit: 3}, []uuid.UUID{ids[1]}, false},
		{"by appid", Filter{ComponentAppID: "wx0000000000000002"}, Page{Limit: 3}, []uuid.UUID{ids[2]}, false},
		{"none", Filter{Status: Suspended}, Page{Limit: 3}, nil, false},
	} {
		list, more, err := b.tenants.List(t.Context(), tc.f, tc.p)
		var got []uuid.UUID
		for _, d := range list {
			got = append(got, d.ID)
			if d.Credentials == nil {
				t.Errorf("%s: %s has no fingerprints", tc.name, d.Name)
			}
		}
		if d := cmp.Diff(tc.want, got); d != "" || more != tc.more || err != nil {
			t.Errorf("%s: more %v, %v (-want +got):\n%s", tc.name, more, err, d)
		}
	}
}

// Each change leaves its line, and none of the lines holds a secret.
func TestChangeLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	ten := b.tenant(t, "a", "wx0000000000000001")
	other := b.tenant(t, "z", "wx0000000000000002")
	if _, err := b.tenants.Update(ctx, cli, ten, Update{Name: ptr("b")}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tenants.SetCredentials(ctx, cli, ten, NewCredentials{MessageToken: text("CANARYtoken2")}); err != nil {
		t.Fatal(err)
	}
	who := b.caller(t, ten, NewKey{Scopes: []string{"*"}})
	key, token := b.key(t, who, NewKey{Scopes: []string{"*"}})
	rotated, token2, err := b.keys.Rotate(ctx, who, key.ID, 0, key.ExpiresAt)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.keys.Revoke(ctx, who, rotated.ID); err != nil {
		t.Fatal(err)
	}
	// What is refused leaves no line.
	_, _, err = b.keys.Rotate(ctx, who, rotated.ID, 0, key.ExpiresAt)
	wantCode(t, "Rotate of a revoked key", err, "key_not_active")
	if err := b.tenants.Delete(ctx, cli, ten, nil); err != nil {
		t.Fatal(err)
	}
	id, first, second := typeid.Format(typeid.Tenant, ten), typeid.Format(typeid.Key, key.ID), typeid.Format(typeid.Key, rotated.ID)
	want := []string{
		"cli tenant.delete " + id,
		who.Actor + " api_key.revoke " + second,
		who.Actor + " api_key.rotate " + first,
		who.Actor + " api_key.create " + second,
		who.Actor + " api_key.create " + first,
		"cli api_key.create " + who.Actor,
		"cli tenant.set_credentials " + id,
		"cli tenant.update " + id,
		"cli tenant.set_credentials " + id,
		"cli tenant.create " + id,
	}
	var got []string
	for _, c := range changesOf(t, b, ten) {
		got = append(got, c.Actor+" "+c.Action+" "+c.Subject)
		all := string(c.Before) + string(c.After)
		if strings.Contains(all, "CANARY") || strings.Contains(all, aesKey) || strings.Contains(all, token) || strings.Contains(all, token2.Reveal()) {
			t.Errorf("%s holds a secret: %s", c.Action, all)
		}
		if bytes.Equal(c.Before, c.After) {
			t.Errorf("%s changed nothing: %s", c.Action, all)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
	by := func(f ChangeFilter) int {
		list, _, err := b.tenants.ListChanges(ctx, f, Page{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if n := by(ChangeFilter{TenantID: &other}); n != 2 {
		t.Errorf("the other tenant has %d changes, want 2", n)
	}
	if n := by(ChangeFilter{TenantID: &ten, Actor: who.Actor}); n != 4 {
		t.Errorf("the key made %d changes, want 4", n)
	}
	if n := by(ChangeFilter{Action: "signing_key.create", Actor: "gateway"}); n != 2 {
		t.Errorf("%d signing keys were made, want 2", n)
	}
	wantCode(t, "a change by nobody", b.tenants.Delete(ctx, Caller{}, other, nil), "internal: tenant.Delete: "+errNoActor.Error())
	if d, err := b.tenants.Get(ctx, other); err != nil || d.Status != Active {
		t.Errorf("a change without its line was made: %s, %v", d.Status, err)
	}
}

// Attack 84.
func TestChangeLogIsAppendOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.tenant(t, "a", "wx0000000000000001")
	for _, sql := range []string{`UPDATE change_log SET actor = 'x'`, `DELETE FROM change_log`, `TRUNCATE change_log`, `UPDATE wechat_id_ledger SET wechat_id = 'x'`, `DELETE FROM wechat_id_ledger`} {
		err := b.db.InSystem(t.Context(), func(tx postgres.DBTX) error {
			_, err := tx.Exec(t.Context(), sql)
			return err
		})
		if !postgres.IsCode(err, "42501") {
			t.Errorf("%s = %v, want permission denied", sql, err)
		}
	}
}
