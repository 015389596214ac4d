// Package inbox takes WeChat's pushes: it verifies and decrypts each, keeps it
// once, answers at once, and applies it in the background.
//
// A push must wait on nothing but one batch, one round trip. It is never
// refused for its age, and never lost for being early, late, repeated or
// unknown: what can't be applied is kept and said so. Whatever makes one
// unacceptable, the sender is told the same nothing.
package inbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// Deps is what an Inbox works with.
type Deps struct {
	DB         *postgres.DB
	Keyset     *secret.Keyset
	Spool      *spool.Spool
	Tenants    *tenant.Tenants
	Authorizer *authorizer.Authorizer
	Ledger     *ledger.Ledger
	Metrics    *observe.Metrics
	Background *observe.Background
	Log        *slog.Logger
}

// Inbox is safe for concurrent use.
type Inbox struct {
	Deps
	arrived chan postgres.Due // what was kept here, for Work

	mu      sync.Mutex
	spooled map[string]spool.Record // by what they say: pushes that the database doesn't know yet
}

// New makes an Inbox.
func New(d Deps) *Inbox {
	return &Inbox{Deps: d, arrived: make(chan postgres.Due, appliedAtOnce), spooled: map[string]spool.Record{}}
}

// A Push is an HTTP request to one of a tenant's two push URLs.
type Push struct {
	Ref   string     // of the tenant, from the path
	AppID string     // of the merchant, from the path; "" at the component's URL
	Query url.Values // msg_signature, timestamp, nonce, encrypt_type
	Body  []byte
}

// ErrRefused is returned for whatever isn't a push of WeChat's to this tenant.
// Why is counted and logged, and never told to the sender.
var ErrRefused = errors.New("push refused")

func refuse(reason string) error { return fmt.Errorf("%w: %s", ErrRefused, reason) }

// maxSkew is how far a push's CreateTime may be off before somebody should
// look at a clock.
const maxSkew = 10 * time.Minute

// maxName is how long the names by which a push is known may be, in bytes. The
// documents' have 40 at most; the index that keeps a push once holds no long
// ones. The account's name comes from the path, which nobody has signed.
const maxName = 256

// An Answer is what a push is answered with: a media type and a body, which
// may be empty.
type Answer struct {
	Type string
	Body []byte
}

const plainText = "text/plain; charset=utf-8"

var success = Answer{plainText, []byte("success")}

// Receive keeps a push. An error of nil means that it is kept, or was before:
// answer what is returned. Errors: ErrRefused; anything else means that the
// database doesn't have it and WeChat should push again, though it may lie in
// the spool.
func (in *Inbox) Receive(ctx context.Context, p Push) (Answer, error) {
	ctx = postgres.Using(ctx, postgres.Pushes)
	kind := "messages"
	if p.AppID == "" {
		kind = "component"
	}
	push, err := in.open(ctx, p)
	switch {
	case errors.Is(err, ErrRefused):
		in.Metrics.PushReceived(kind, "refused")
		in.Log.WarnContext(ctx, "push refused", "kind", kind, "err", err)
		return Answer{}, err
	case err != nil:
		in.Metrics.PushReceived(kind, "failed")
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	b := in.DB.NewBatch(push.tenant.ID)
	b.Queue(dbsqlc.EventInboxInsert, push.row)
	fault.At("before_push_insert")
	if err := in.DB.RunTogether(ctx, b, uuid.NewSHA1(uuid.Nil, push.row.PayloadSha256)); err != nil {
		in.Metrics.PushReceived(kind, "failed")
		if postgres.Unavailable(err) {
			in.spool(push.row, push.plain)
		}
		return Answer{}, err
	}
	fault.At("after_push_insert")
	select {
	case in.arrived <- postgres.Due{Tenant: push.tenant.ID, ID: push.row.ID}:
	default: // there is enough to do: Work finds it later
	}
	in.Metrics.PushReceived(kind, "kept")
	return in.answer(push), nil
}

// received is a push that was verified and decrypted, and what did it.
type received struct {
	tenant tenant.Tenant
	appID  string // the component's
	token  secret.Text
	key    msgcrypt.Key
	plain  []byte
	msg    msgcrypt.Message
	row    dbsqlc.EventInboxInsertParams
}

// open verifies before it decrypts, so that nothing can be learned from how it
// fails (design security.md §5).
func (in *Inbox) open(ctx context.Context, p Push) (push received, _ error) {
	t, err := in.Tenants.ByPushRef(ctx, p.Ref)
	if _, ok := problem.As(err); ok && !unavailable(err) {
		return push, refuse("no such push URL")
	}
	if err != nil {
		return push, err
	}
	cred, err := in.Tenants.Credentials(ctx, t.ID)
	if _, ok := problem.As(err); ok && !unavailable(err) {
		return push, refuse("the tenant has no credentials")
	}
	if err != nil {
		return push, err
	}
	if p.Query.Get("encrypt_type") != "aes" {
		return push, refuse("not encrypted")
	}
	envelope, err := msgcrypt.ParseEnvelope(p.Body)
	if err != nil {
		return push, refuse("envelope can't be read")
	}
	push.tenant, push.appID = t, cred.AppID
	var ok bool
	if push.token, ok = signer(cred, p.Query, envelope.Encrypt); !ok {
		return push, refuse("signature")
	}
	plain, key, err := decrypt(cred, envelope.Encrypt)
	if err != nil {
		return push, refuse(err.Error())
	}
	push.plain, push.key = plain, key
	if push.msg, err = msgcrypt.ParseMessage(plain); err != nil {
		return push, refuse("message can't be read")
	}
	created, err := strconv.ParseInt(push.msg.Get("CreateTime"), 10, 64)
	if err != nil {
		return push, refuse("no CreateTime")
	}
	if skew := time.Since(time.Unix(created, 0)).Abs(); skew > maxSkew {
		in.Log.WarnContext(ctx, "push from another time", "tenant_id", t.ID, "skew_seconds", int(skew.Seconds()))
	}
	sum := sha256.Sum256(plain)
	push.row = dbsqlc.EventInboxInsertParams{TenantID: t.ID, ID: typeid.New(), Appid: p.AppID, FromUser: push.msg.Get("FromUserName"),
		CreateTime: created, Event: eventOf(push.msg, p.AppID == ""), PayloadSha256: sum[:]}
	if p.AppID == "" {
		push.row.Appid = cred.AppID
	} else if fault.Sabotaged("dedupe_by_second") {
		push.row.PayloadSha256 = []byte{} // the sender, the second and the event are left
	}
	for _, name := range []string{push.row.Appid, push.row.FromUser, push.row.Event} {
		if len(name) > maxName || !utf8.ValidString(name) || strings.Contains(name, "\x00") {
			return push, refuse("a name that can't be kept")
		}
	}
	push.row.PayloadCt, err = in.Keyset.Seal(payloadPlace(t.ID, push.row.ID), plain)
	return push, err
}

func unavailable(err error) bool {
	p, ok := problem.As(err)
	return ok && (p.Kind == problem.Unavailable || p.Kind == problem.Internal)
}

// signer finds which of the tenant's tokens made the push's signature.
func signer(cred tenant.Credentials, q url.Values, encrypt string) (by secret.Text, ok bool) {
	for _, token := range cred.MessageTokens {
		// No early exit: which token fits is nobody's business.
		if msgcrypt.VerifySignature(q.Get("msg_signature"), token.Reveal(), q.Get("timestamp"), q.Get("nonce"), encrypt) {
			by, ok = token, true
		}
	}
	return by, ok
}

// decrypt tries the current key and then the one before it, which WeChat may
// go on using around a change (platform.md §7.2).
func decrypt(cred tenant.Credentials, encrypt string) (plain []byte, _ msgcrypt.Key, err error) {
	for _, key := range cred.Keys {
		if plain, err = key.Decrypt(encrypt, cred.AppID); err == nil {
			return plain, key, nil
		}
	}
	return nil, msgcrypt.Key{}, err
}

// eventOf names what a push tells of.
func eventOf(msg msgcrypt.Message, component bool) string {
	switch {
	case component:
		return msg.Get("InfoType")
	case msg.Get("MsgType") == "event":
		return msg.Get("Event")
	default:
		return "message:" + msg.Get("MsgType")
	}
}

func payloadPlace(tenant, id uuid.UUID) secret.Place {
	return secret.Place{Table: "event_inbox", Column: "payload_ct", Tenant: tenant, Row: id.String()}
}
