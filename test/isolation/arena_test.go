package isolation

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// An arena is a gateway with a merchant, at rest, on which attacks of design
// security.md §12 are tried: each has an answer, and no other effect.
type arena struct {
	*two
	g     *world.Gateway
	c     *world.Client // all of the tenant, for the merchant
	rec   recorder      // of what it and raw requests are answered
	addr  string
	kid   string
	seed  ed25519.PrivateKey
	from  int
	calls int
	rows  map[string]string

	broken []string // codes of 5xx that the test provokes elsewhere
}

// newArena makes one; each of before is run when there is a simulator and no
// gateway yet.
func newArena(t *testing.T, o world.Options, before ...func(*world.World)) *arena {
	t.Helper()
	// Failures are counted by address: each attack comes from another one.
	env := map[string]string{"GATEWAY_TRUSTED_PROXIES": "127.0.0.1/32", "GATEWAY_KEY_RATE": "1000000", "GATEWAY_KEY_BURST": "1000000", "GATEWAY_TENANT_RATE": "1000000"}
	for name, v := range o.Env {
		env[name] = v
	}
	o.Env, o.Component = env, canaries
	a := &arena{two: &two{World: world.New(t, o)}}
	for _, prepare := range before {
		prepare(a.World)
	}
	a.g = a.Start(nil)
	a.addr = strings.TrimPrefix(a.g.URL, "http://")
	a.c = world.NewClient(t, a.g.URL, a.Key, &a.rec).For(a.Demo(a.g).Merchant)
	t.Cleanup(func() {
		if !t.Failed() { // it may have ended in the middle of anything
			a.well(t)
			a.showsNoSecret(t)
		}
	})
	a.two.a.id = a.UUID(typeid.Tenant, a.Tenant.ID)
	a.Run("tenant", "update", a.Tenant.ID, "--return-url-allow", "https://shop.example", "--cors-origin", "https://shop.example")
	head, _, _ := strings.Cut(a.Key, ".")
	js, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(js, &header); err != nil {
		t.Fatal(err)
	}
	a.kid = header.Kid
	keyset, err := secret.OpenKeyset(a.Env["GATEWAY_KEYSET_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	sealed := a.Row(`SELECT private_key_ct FROM signing_keys WHERE id = $1`, a.kid)["private_key_ct"].([]byte)
	seed, err := keyset.Open(secret.Place{Table: "signing_keys", Column: "private_key_ct", Row: a.kid}, sealed)
	if err != nil {
		t.Fatal(err)
	}
	a.seed = ed25519.NewKeyFromSeed(seed)
	return a
}

// rest waits until nothing happens by itself, and remembers how everything is.
func (a *arena) rest(t *testing.T) {
	t.Helper()
	a.Hold(true)
	a.applied(t)
	since := time.Now()
	world.Eventually(t, 20*time.Second, "everything is at rest", func() error {
		if due := a.sql(t, `SELECT appid FROM merchants WHERE inventory_due_at <= now() + interval '1 minute' OR status = 'authorized' AND NOT synced ? 'store'`); len(due) > 0 {
			return fmt.Errorf("to be compared: %v", due)
		}
		before := a.rows
		a.rows = a.everyRow(t)
		if diff := gocmp.Diff(before, a.rows); diff != "" {
			since = time.Now()
			return fmt.Errorf("%s", diff)
		}
		if quiet := time.Since(since); quiet < 300*time.Millisecond {
			return fmt.Errorf("at rest for %s only", quiet)
		}
		return nil
	})
	a.calls = len(a.Journal(""))
}

// everyRow is a checksum of each table of tenants, over all of them.
func (a *arena) everyRow(t *testing.T) map[string]string {
	t.Helper()
	var parts []string
	for _, table := range append(a.tenantTables(t), "tenants") {
		parts = append(parts, fmt.Sprintf(`SELECT '%[1]s' AS name, count(*) || ' ' || coalesce(md5(string_agg(row, '|' ORDER BY row)), '') AS sum
			FROM (SELECT (to_jsonb(x) - 'last_used_at')::text AS row FROM %[1]s x) y`, table))
	}
	out := map[string]string{}
	for _, row := range a.sql(t, strings.Join(parts, " UNION ALL ")) {
		out[row["name"].(string)] = row["sum"].(string)
	}
	return out
}

// untouched fails the test when the attack changed a row or made a call.
func (a *arena) untouched(t *testing.T, after string) {
	t.Helper()
	rows := a.everyRow(t)
	if diff := gocmp.Diff(a.rows, rows); diff != "" {
		t.Errorf("%s: rows changed:\n%s", after, diff)
		a.rows = rows
	}
	if n := len(a.Journal("")); n != a.calls {
		t.Errorf("%s: %d calls of WeChat were made", after, n-a.calls)
		a.calls = n
	}
}

// well fails the test when the gateway panicked, or said 5xx to anything of ours:
// not when it shed load, or the test broke WeChat or what is at rest.
func (a *arena) well(t *testing.T) {
	t.Helper()
	for _, line := range a.g.Logged("request") {
		if status, _ := line["status"].(float64); status >= http.StatusInternalServerError && !slices.Contains(append(a.broken, "overloaded"), fmt.Sprint(line["code"])) {
			t.Errorf("%v", line)
		}
	}
	if out := a.g.Output(); len(a.g.Logged("request")) == 0 || strings.Contains(out, "panic") {
		t.Errorf("the gateway logged no request, or panicked: %s", a.g.Tail(20))
	}
}

// showsNoSecret ends the gateway and looks, after whatever was tried on it at
// debug level, for every secret that lived meanwhile: in what it wrote and
// answered, in its metrics, its database and its spool. What was put there on
// purpose has to be found.
func (a *arena) showsNoSecret(t *testing.T) {
	t.Helper()
	a.Exec(`UPDATE merchants SET metadata = jsonb_build_object('note', $1::text)`, onPurpose)
	note := strings.Replace(storeEvent("gh_x", "1", "0", 1), "add_store_audit_info", onPurpose, 1)
	sealPush(t, a.Component, note).to(a.c, a.Tenant.Ref+"/messages/"+sandbox.DemoOfficialAccount).Want(http.StatusOK)
	a.Eventually("the event is logged", func() error {
		if !strings.Contains(a.g.Output(), onPurpose) {
			return fmt.Errorf("%s", a.g.Tail(3))
		}
		return nil
	})
	metrics := get(t, a.g.AdminURL+"/metrics")
	a.g.Kill()
	found := secretsOf(t, &a.rec, a.World)
	known(t, found, "component secret", "message token", "EncodingAESKey", "ticket", "component token", "authorizer token", "refresh token", "API key", "keyset")
	noneShows(t, found,
		shelf{"the log", a.g.Output(), onPurpose},
		shelf{"/metrics", metrics, `route="/v1/`},
		shelf{"the database", dump(t, a.World), onPurpose},
		shelf{"the spool", files(t, a.Dir, "spool-"), onPurpose})
	a.rec.holdsNone(t, found)
}

// address is one that nobody has come from before.
func (a *arena) address() string {
	a.from++
	return fmt.Sprintf("203.0.%d.%d", 1+a.from/250, 1+a.from%250)
}

// An answer is what a raw request got.
type answer struct {
	status int
	header http.Header
	body   string
	code   string // of a problem
	took   time.Duration
}

// raw sends bytes as they are and reads one answer.
func (a *arena) raw(t *testing.T, request string) answer {
	t.Helper()
	begun := time.Now()
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(40 * time.Second))
	go func() { _, _ = io.WriteString(conn, request) }() // the gateway may hang up before the end
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{took: time.Since(begun), body: err.Error()}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // as far as it came
	out := answer{status: resp.StatusCode, header: resp.Header, body: string(body), took: time.Since(begun)}
	method, target, _ := strings.Cut(request, " ")
	a.rec.keep(reply{method, target[:strings.IndexAny(target+" ", " ?")], resp.StatusCode, fmt.Sprint(resp.Header), string(body)})
	var p struct{ Code string }
	if json.Unmarshal(body, &p) == nil {
		out.code = p.Code
	}
	return out
}

// everything sends bytes and reads all that comes until the gateway hangs up.
func (a *arena) everything(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("the gateway did not hang up: %v", err)
	}
	return string(got)
}

// request writes a request with a key, "" for none, and further header lines.
func (a *arena) request(method, target, key, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nX-Forwarded-For: %s\r\n", method, target, a.addr, a.address())
	if key != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", key)
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
		if !strings.Contains(strings.Join(headers, ""), "Content-Type") {
			b.WriteString("Content-Type: application/json\r\n")
		}
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String() + "\r\n" + body
}

// A claim set is a token's payload, as the gateway writes it.
type claims map[string]any

// claims of a new key that was never given out.
func (a *arena) claims() claims {
	now, id := time.Now().Unix(), uuid.New()
	return claims{"iss": "mendian", "aud": "gateway-api", "sub": typeid.Format(typeid.Key, id), "tid": a.Tenant.ID, "jti": id.String(),
		"iat": now - 7200, "nbf": now - 7200, "exp": now + 3600, "scope": "*", "v": 1}
}

func (c claims) with(name string, v any) claims {
	if c[name] = v; v == nil {
		delete(c, name)
	}
	return c
}

func (c claims) json() string {
	js, _ := json.Marshal(c) // texts and numbers
	return string(js)
}

func (a *arena) header() string {
	return fmt.Sprintf(`{"alg":"EdDSA","typ":"gwk+jwt","kid":%q}`, a.kid)
}

// sign makes a token of any header and payload.
func sign(key ed25519.PrivateKey, header, payload string) string {
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(header)) + "." + enc([]byte(payload))
	return text + "." + enc(ed25519.Sign(key, []byte(text)))
}

// given makes a token of the claims and the row that says it was given out
// with these scopes: what it is refused for then is in the token itself.
func (a *arena) given(t *testing.T, c claims, scopes ...string) string {
	t.Helper()
	token := sign(a.seed, a.header(), c.json())
	sum := sha256.Sum256([]byte(token))
	a.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT set_config('app.tenant_id', $1, true)`, a.two.a.id.String()); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO api_keys (tenant_id, id, scopes, token_sha256, created_by, expires_at) VALUES ($1, $2, $3, $4, 'test', now() + interval '1 hour')`,
				a.two.a.id, c["jti"], scopes, sum[:])
			return err
		})
	})
	return token
}
