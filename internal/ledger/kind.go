package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// A Kind is one write that reaches WeChat: what it calls, which ids its reply
// gives, what it changes here, and how its effect is proven by reading when
// the reply was lost. One file holds all of it (store_create.go shows how).
type Kind struct {
	Name     string // "store.create": stored, never renamed
	Subject  string // type of the resource: "store"
	Endpoint *wechat.Endpoint
	Query    url.Values // the same in every call; nil: none

	// AuditKind is the kind of audit that IDs' audit_id belongs to; "" if the
	// write is never audited.
	AuditKind string
	// Audited: WeChat audits each one that it takes, and never tells the
	// audit's id.
	Audited bool

	// IDs reads every id that a reply gives, before anybody looks at its
	// errcode: an id is kept even when the call failed. It must take any bytes.
	IDs func(wechat.Reply) []ID

	// Gives is the type of the id without which a success proves nothing: what
	// was made can't be named. "": none is needed.
	Gives string

	// Judge, where set, may overrule the class of a refusal: a store that is
	// gone already was deleted.
	Judge func(op *Operation, class wechat.Class, err *wechat.Error) wechat.Class

	// Confirm, where set, reads WeChat about a refusal that may mean that the
	// effect is there, before the outcome is recorded. Where WeChat can't be
	// read it returns out as it is.
	Confirm func(ctx context.Context, l *Ledger, op *Operation, out Outcome) Outcome

	// Settle queues what the outcome changes in the resource's own rows. It
	// may run more than once for the same outcome.
	Settle func(b *postgres.Batch, op *Operation, out Outcome) error

	// Reopen queues what one more attempt changes there, after one that
	// certainly did nothing.
	Reopen func(b *postgres.Batch, op *Operation)

	// Prove asks WeChat, by reading only, whether the effect is there. A Harmless
	// endpoint needs none: what nobody knows of an attempt there has failed. nil
	// for an audited write: its audit's event alone tells.
	Prove func(ctx context.Context, l *Ledger, op *Operation) (Proof, error)

	// Task is set, and all but Name and Subject left out, for long work that
	// writes nothing at WeChat: what a dead process began is simply done again.
	Task func(ctx context.Context, l *Ledger, op *Operation, progress func(done, total int)) error
}

// toldByEvent reports whether nothing but an audit's event tells that an
// attempt whose answer was lost was executed.
func (k *Kind) toldByEvent() bool { return k.Prove == nil && k.AuditKind != "" }

// An ID is something that WeChat gives once.
type ID struct {
	Type  string // audit_id, poi_id, base_id, …
	Value string
}

// The types of ids.
const (
	AuditID = "audit_id"
	PoiID   = "poi_id"
	GoodsID = "goods_id"
	// MapPoiID names a place on Tencent's map: many stores of many merchants may
	// have been made for it.
	MapPoiID = "map_poi_id"
)

// An Operation is a write as the journal knows it.
type Operation struct {
	dbsqlc.Operation
	Kind     *Kind
	Merchant authorizer.Merchant
	Body     []byte // what WeChat is sent; where it is a file, what is kept of that

	file      []byte // what WeChat is sent, where Endpoint.Part is set; never kept
	unwatched bool   // its caller has left with 202: the reconciler goes on with it
	unproven  bool   // the attempt follows one whose fate nobody knows (Unshown)
}

// Unmarshal reads the request that was, or will be, sent.
func (op *Operation) Unmarshal(into any) error { return json.Unmarshal(op.Body, into) }

// An Outcome is what is known of an attempt.
type Outcome struct {
	Class  wechat.Class
	Source string // where it is known from: response, spool, event, reconciler
	IDs    []ID
	// Audited says that an audit follows, where no answer gave its id: the
	// audit's event will.
	Audited bool
	// Audit is where the audit that follows stands; "": where its kind begins.
	Audit AuditStatus
	// GivenUp: it is Ambiguous, and nobody looks for it, since a second execution
	// does no harm.
	GivenUp bool
	// Unasked: it is Ambiguous still, because WeChat couldn't be asked.
	Unasked bool
	Reply   wechat.Reply // zero unless WeChat's own answer is at hand
	Err     *problem.Error
	Errno   int64 // WeChat's errcode
	RID     string
	// Change is the line of the change log, where a person settled it.
	Change *dbsqlc.ChangeInsertParams
}

// The sources of knowledge, as the id ledger records them.
const (
	FromResponse   = "response"
	FromSpool      = "spool"
	FromEvent      = "event"
	FromReconciler = "reconciler"
	FromPoll       = "poll"
	FromPerson     = "person" // who resolved what nothing else could
)

// settled reports whether nothing more is to be found out.
func (o Outcome) settled() bool { return o.Class != wechat.Ambiguous || o.GivenUp }

// told is the source that a history shows.
func (o Outcome) told() string {
	if o.Source == FromSpool {
		return FromResponse // WeChat's own answer, only later
	}
	return o.Source
}

// answered reports whether it is WeChat's own answer that tells.
func (o Outcome) answered() bool { return o.told() == FromResponse }

// ID returns the outcome's id of this type, or "".
func (o Outcome) ID(typ string) string {
	for _, id := range o.IDs {
		if id.Type == typ {
			return id.Value
		}
	}
	return ""
}

// A Proof is what reading WeChat told of an operation's effect.
type Proof struct {
	Verdict    Verdict
	IDs        []ID
	Audited    bool           // with Present: see Outcome
	Audit      AuditStatus    // with Present: see Outcome
	Refused    *problem.Error // with Absent: the refusal that stands after all
	Candidates []Candidate    // with Inconclusive: what it could be
}

// A Verdict is the result of one look.
type Verdict uint8

// The verdicts. One look that finds nothing proves nothing: see schedule.go.
const (
	Inconclusive Verdict = iota
	Present
	Absent
	// Unshown: WeChat shows nothing by which the effect could be told. The same
	// is sent again, a few times, where a second execution changes nothing, but
	// only an answer to that tells.
	Unshown
)

// A Candidate is something at WeChat that may be an operation's effect.
type Candidate struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// kinds are the writes that exist, by name.
var kinds = map[string]*Kind{}

// errUnknownKind is returned for an operation that a newer release began.
var errUnknownKind = errors.New("this release doesn't know the operation's kind")

func register(k *Kind) *Kind {
	kinds[k.Name] = k
	return k
}

// nullable is nil for the zero UUID.
func nullable(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// optional is nil for "".
func optional(s string) *string { return unlessEmpty(&s) }

// unlessEmpty is s, which stays where it is; nil where that is "".
func unlessEmpty(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}

// deref is "" for nil.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
