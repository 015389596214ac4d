// Package ledger carries out what a caller wants changed at WeChat, so that
// nothing is ever lost and nothing is done twice because of us.
//
// Every write is an operation with two commits around the call. T1 records
// the intent, before anything is sent. The reply is spooled to disk and synced
// before T2 records the outcome: ids first, whatever the errcode says. What a
// crash, a timeout or an unreadable reply leaves unknown is reconciled by
// reading WeChat, never by sending blindly again; only where a look has proven
// that nothing happened is an attempt repeated.
//
// It must never forget an id that WeChat gave, never send a write that it has
// not recorded, and never call an outcome known that it merely hopes for. A new
// write is a new Kind in a file of its own; nothing here names one.
package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// Deps is what a Ledger works with.
type Deps struct {
	DB         *postgres.DB
	Keyset     *secret.Keyset
	Authorizer *authorizer.Authorizer
	Spool      *spool.Spool
	Changes    *postgres.Changes
	Schedule   Schedule
	Log        *slog.Logger
	Background *observe.Background
}

// Ledger is safe for concurrent use.
type Ledger struct {
	Deps
	q *dbsqlc.Queries

	Stores       *Collection[StoreFields]
	MapPOIs      *Collection[MapPOIFields]
	LegacyStores *Collection[LegacyFields]
	Goods        *Collection[GoodsFields]

	StorePrograms *Collection[StoreProgramFields]

	collections []*collection // all of them

	ctx  context.Context // ends when nothing more may be tried
	stop context.CancelFunc
	work sync.WaitGroup
}

// New makes a Ledger. Replay must run before it serves.
func New(d Deps) *Ledger {
	l := &Ledger{Deps: d, q: dbsqlc.New()}
	l.Stores = newCollection[StoreFields](l, storeType)
	l.MapPOIs = newCollection[MapPOIFields](l, mapPOIType)
	l.LegacyStores = newCollection[LegacyFields](l, legacyType)
	l.Goods = newCollection[GoodsFields](l, goodsType)
	l.StorePrograms = newCollection[StoreProgramFields](l, storeProgramType)
	l.ctx, l.stop = context.WithCancel(postgres.Using(context.Background(), postgres.Workers))
	return l
}

// Close waits for outcomes that are still being committed, as long as ctx
// allows, and then a moment for what has been told to stop. What it leaves is
// in the spool, or is taken over when its lease ends.
func (l *Ledger) Close(ctx context.Context) {
	done := make(chan struct{})
	go func() { l.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	l.stop()
	select {
	case <-done:
	case <-time.After(stopFor):
		l.Log.Warn("some writes were not waited for; what they sent is taken over")
	}
}

// stopFor is how long work may take to notice that nothing more may be tried.
const stopFor = 2 * time.Second

// A Write is a request to change something at WeChat. Its fields have been
// validated and the merchant's permission checked.
type Write struct {
	Request
	Kind     *Kind
	Subject  uuid.UUID  // ours: new for a creation
	Body     []byte     // what WeChat is sent; where it is a file, what is kept of that
	File     []byte     // the file
	Natural  string     // at most one write of a kind with this key is open in a merchant
	Baseline any        // what the reconciler must know of the time before
	Media    []MediaRef // the temporary files that Body names

	// Begin queues into T1 the resource's own rows.
	Begin func(b *postgres.Batch, op *Operation) error
	// Refused turns a refusal of T1 that is the resource's own into a problem.
	Refused func(ctx context.Context, err error) error
	// Read queues into T2 what the caller wants to see after it.
	Read func(b *postgres.Batch, op *Operation)
}

// ErrValid is returned for a Write that was only to be validated, and could be
// carried out: T1 was tried whole, and undone.
var ErrValid = errors.New("valid")

// Done is what became of a Write.
type Done struct {
	Operation *Operation
	Replayed  bool // an earlier request with the same key did it
	Committed bool // false: WeChat's answer is on disk here, but the database is away
}

// confirmWithin is how long Kind.Confirm may take: what leaseOf leaves to spare.
const confirmWithin = 5 * time.Second

// leaseOf is how long an attempt may take in all, and so its lease: twice the
// wait for a token and the call, because a rejected token costs one more of
// each, and some time to commit. A look that began before the lease ended would
// run beside a call that is still under way.
func leaseOf(e *wechat.Endpoint) time.Duration {
	const tokenWait, spare = 10 * time.Second, confirmWithin + 5*time.Second
	return 2*(tokenWait+e.Deadline()) + spare
}

// Do carries out w. It returns when the outcome is known and committed, or
// when it is known that it isn't: then the operation is reconciling and its
// state says so. A client that goes away changes nothing once T1 is committed.
//
// Errors: 503 where nothing was sent; WeChat's refusal by its own code; 409
// operation_in_progress; 409 idempotency_in_flight; 422 idempotency_key_reused;
// 422 media_expired; 429 wechat_quota_exhausted, where nothing was sent either, or by WeChat's word;
// 429 rate_limited and 503 upstream_circuit_open, where nothing was even written;
// ErrValid where it was only to be validated.
func (l *Ledger) Do(ctx context.Context, w Write) (Done, error) {
	if err := l.ready(); err != nil {
		return Done{}, err
	}
	var pass *authorizer.Pass
	if !w.ValidateOnly { // or nothing is sent
		var err error
		if pass, err = l.Authorizer.Admit(ctx, w.Merchant, w.Kind.Endpoint); err != nil {
			return l.turnedAway(ctx, w, err)
		}
		defer pass.Leave()
	}
	op, err := l.begin(ctx, w)
	if err == nil {
		return l.attempt(ctx, pass, op, w.Read)
	}
	if pass != nil {
		pass.Leave() // what follows may be another attempt
	}
	switch {
	case postgres.IsCode(err, postgres.RefusedKeyTaken):
		done, found, err := l.repeat(ctx, w)
		if !found && err == nil {
			return l.Do(ctx, w) // the key has just been forgotten for its age
		}
		return done, err
	case quota.Exhausted(err):
		return Done{}, err
	case postgres.IsCode(err, postgres.Validated):
		return Done{}, ErrValid
	case postgres.IsCode(err, postgres.RefusedMedia):
		return Done{}, l.mediaExpired(ctx, w.Merchant, w.Media, err)
	case postgres.IsUnique(err, "operations_one_active"):
		return Done{}, problem.Of(problem.CodeOperationInProgress).WithErr(err)
	case postgres.Refused(err) && w.Refused != nil:
		return Done{}, w.Refused(ctx, err)
	case postgres.Refused(err):
		return Done{}, err
	}
	if w.ValidateOnly || errors.Is(err, postgres.ErrNotAsked) {
		return Done{}, problem.Of(problem.CodeStorageUnavailable).WithErr(err)
	}
	return Done{}, l.neverSent(ctx, op, err)
}

// neverSent is for an attempt of which err leaves open whether its T1 was
// committed: nothing was sent, and nothing will be, which it says as soon as
// the database can be told. It returns what the caller is told.
func (l *Ledger) neverSent(ctx context.Context, op *Operation, err error) error {
	out := judge(op, wechat.Reply{}, &wechat.Error{Endpoint: op.Kind.Endpoint.Name, Class: wechat.NotSent, Err: err}, FromResponse)
	l.settleInBackground(ctx, op, out, nil)
	return problem.Of(problem.CodeStorageUnavailable).WithErr(err)
}

// ready is nil while WeChat's answer to a write could be kept: what can't be
// must not be caused. Errors: storage_unavailable.
func (l *Ledger) ready() error {
	if err := l.Spool.Ready(); err != nil {
		return problem.Of(problem.CodeStorageUnavailable).WithErr(err)
	}
	return nil
}

// admit is what comes before T1 of any attempt that isn't a request's first.
// Errors: storage_unavailable, and those of Authorizer.Admit.
func (l *Ledger) admit(ctx context.Context, op *Operation) (*authorizer.Pass, error) {
	if err := l.ready(); err != nil {
		return nil, err
	}
	return l.Authorizer.Admit(ctx, op.Merchant, op.Kind.Endpoint)
}

// turnedAway answers a write that may not be sent now: what was done earlier
// under its key can be told all the same.
func (l *Ledger) turnedAway(ctx context.Context, w Write, refusal error) (Done, error) {
	if w.IdempotencyKey != "" {
		if done, found, err := l.repeat(ctx, w); found && err == nil {
			return done, nil
		} else if p, ok := problem.As(err); found && ok {
			return done, p
		}
	}
	return Done{}, refusal
}

// begin is T1.
func (l *Ledger) begin(ctx context.Context, w Write) (*Operation, error) {
	op := &Operation{Kind: w.Kind, Merchant: w.Merchant, Body: w.Body, file: w.File}
	op.TenantID, op.ID, op.Attempt = w.Merchant.TenantID, typeid.New(), 1
	op.MerchantID, op.SubjectID = nullable(w.Merchant.ID), nullable(w.Subject)
	op.Operation.Kind, op.SubjectType = w.Kind.Name, &w.Kind.Subject
	op.RequestedBy, op.IdempotencyKey = w.Caller.Actor, optional(w.IdempotencyKey)
	op.State, op.SentAt = "executing", new(time.Now())
	if w.Kind.AuditKind != "" {
		op.AuditID = new(typeid.New())
	}
	var err error
	if op.RequestCt, err = l.Keyset.Seal(requestPlace(op), w.Body); err != nil {
		return op, err
	}
	if op.MatchKey, err = json.Marshal(map[string]string{"natural": w.Natural}); err != nil {
		return op, err
	}
	if op.Baseline, err = json.Marshal(w.Baseline); err != nil {
		return op, err
	}

	b := l.DB.NewBatch(op.TenantID)
	if w.IdempotencyKey != "" && !w.ValidateOnly {
		b.Queue(dbsqlc.IdempotencyKeyClaim, dbsqlc.IdempotencyKeyClaimParams{TenantID: op.TenantID, MerchantID: w.Merchant.ID,
			Key: w.IdempotencyKey, Fingerprint: w.Fingerprint, OperationID: op.ID})
	}
	b.Queue(dbsqlc.OperationInsert, dbsqlc.OperationInsertParams{TenantID: op.TenantID, ID: op.ID, MerchantID: op.MerchantID,
		Kind: w.Kind.Name, SubjectType: op.SubjectType, SubjectID: op.SubjectID, AuditID: op.AuditID, RequestedBy: op.RequestedBy,
		IdempotencyKey: op.IdempotencyKey, RequestCt: op.RequestCt, MatchKey: op.MatchKey, Baseline: op.Baseline,
		LeaseOwner: new(l.Spool.Instance()), Lease: leaseOf(w.Kind.Endpoint)})
	queueMedia(b, w.Merchant, w.Media)
	if err := w.Begin(b, op); err != nil {
		return op, err
	}
	counted := quota.Reserve(b, op.TenantID, w.Merchant.ID, w.Kind.Endpoint)
	if w.ValidateOnly {
		b.Queue(dbsqlc.OperationValidated, struct{}{})
	}
	fault.At("before_t1")
	if w.ValidateOnly {
		return op, counted.Told(ctx, l.DB.Run(ctx, b)) // what is undone in any case would undo its group
	}
	return op, counted.Told(ctx, l.commitT1(ctx, op, b))
}

// commitT1 runs b outside the client's context: a T1 cut short would leave a
// row that says executing and nobody who executes.
func (l *Ledger) commitT1(ctx context.Context, op *Operation, b *postgres.Batch) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return l.DB.RunTogether(ctx, b, op.Merchant.ID)
}

// attempt sends op once and settles it, and ends pass. The end of ctx changes
// nothing.
func (l *Ledger) attempt(ctx context.Context, pass *authorizer.Pass, op *Operation, read func(*postgres.Batch, *Operation)) (Done, error) {
	fault.AtAttempt(op.Attempt, "after_t1")
	l.work.Add(1)
	defer l.work.Done()
	detached := context.WithoutCancel(ctx)
	if fault.Sabotaged("call_ends_with_client") {
		detached = ctx // the client's; fault builds let it end the call
	}
	sent, cancel := context.WithTimeout(detached, op.Kind.Endpoint.Deadline())
	defer cancel()
	body := op.Body
	if op.Kind.Endpoint.Part != "" {
		body = op.file
	}
	reply, err := pass.Send(fault.Mark(sent, op.Attempt), op.Kind.Query, body)
	if err != nil && fault.Sabotaged("sent_again") {
		// Whatever became of the first one.
		reply, err = pass.Send(fault.Mark(sent, op.Attempt), op.Kind.Query, body)
	}
	fault.AtAttempt(op.Attempt, "after_upstream")
	record := spool.Record{Tenant: op.TenantID, Merchant: op.Merchant.ID, Operation: op.ID, Attempt: op.Attempt,
		Status: reply.Status, Body: reply.Body, At: time.Now().UTC(), Unwatched: op.unwatched, Unproven: op.unproven}
	spooled := false
	heard := err == nil || len(reply.Body) > 0
	if heard && !fault.Sabotaged("commit_before_spool") {
		if serr := l.Spool.Append(record); serr != nil {
			l.Log.Error("WeChat's answer could not be spooled", "operation_id", typeid.Format(typeid.Operation, op.ID), "err", serr)
		} else {
			spooled = true
		}
		fault.AtAttempt(op.Attempt, "after_spool")
	}
	out := judge(op, reply, err, FromResponse)
	quota.TellSpent(ctx, op.Merchant.ID, op.Kind.Endpoint, out.Errno)
	if out.Errno != 0 && op.Kind.Confirm != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmWithin)
		out = op.Kind.Confirm(ctx, l, op, out)
		cancel()
	}
	for _, id := range out.IDs {
		// A third copy, off this host. Ids are no secrets.
		l.Log.Info("wechat_id_issued", "type", id.Type, "id", id.Value, "tenant_id", op.TenantID, "merchant_id", op.Merchant.ID,
			"operation_id", typeid.Format(typeid.Operation, op.ID))
	}
	committed := l.settleInBackground(ctx, op, out, func(b *postgres.Batch) {
		if read != nil {
			read(b, op)
		}
	})
	done := Done{Operation: op}
	select {
	case c := <-committed:
		if c.err != nil {
			return done, c.err
		}
		*op = *c.op
		done.Committed = true
		if heard && fault.Sabotaged("commit_before_spool") {
			// Too late.
			spooled = l.Spool.Append(record) == nil
		}
		fault.AtAttempt(op.Attempt, "before_reply")
		if spooled {
			l.spoolDone(record)
			fault.AtAttempt(op.Attempt, "spool_done")
		}
	case <-time.After(10 * time.Second):
		l.work.Go(func() {
			if c := <-committed; c.err == nil && spooled {
				l.spoolDone(record)
			}
		})
		op.State = "reconciling"
		return done, nil
	}
	if out.Err != nil && out.settled() {
		out.Err.OperationID = typeid.Format(typeid.Operation, op.ID)
		return done, out.Err
	}
	return done, nil
}

func (l *Ledger) spoolDone(r spool.Record) {
	if err := l.Spool.Done(r); err != nil {
		l.Log.Warn("spool", "err", err)
	}
}

// A commit is how T2 ended: committed, or with an error that no repetition
// would mend.
type commit struct {
	op  *Operation
	err error
}

// settleInBackground is T2 and its repetition for as long as the database is
// away. It works on a copy of op: whoever waits may give up before. The end of
// parent changes nothing.
func (l *Ledger) settleInBackground(parent context.Context, op *Operation, out Outcome, read func(*postgres.Batch)) <-chan commit {
	done := make(chan commit, 1)
	own, begun := *op, time.Now()
	l.beside("commit an outcome", own.attr(), func(context.Context) error {
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), 10*time.Second)
			stop := context.AfterFunc(l.ctx, cancel)
			err := observe.Caught(func() error { return l.settle(ctx, &own, out, read) })
			stop()
			cancel()
			// There is no such operation where T1 was lost on its way; later
			// than that it can't arrive any more.
			lost := postgres.IsNotFound(err) && time.Since(begun) > 10*time.Second
			if err == nil || lost {
				done <- commit{&own, err}
				return nil
			}
			_, panicked := errors.AsType[*observe.Panic](err)
			if panicked || postgres.Refused(err) {
				l.saveIDs(&own, out)
			}
			if panicked {
				// It would again. The operation stays open, and its answer in
				// the spool, for a release that knows better.
				done <- commit{&own, err}
				return err
			}
			l.Log.Warn("outcome not committed yet", "operation_id", typeid.Format(typeid.Operation, own.ID), "err", err)
			select {
			case <-l.ctx.Done():
				done <- commit{&own, errors.Join(err, l.ctx.Err())}
				return nil
			case <-time.After(wait):
			}
		}
	})
	return done
}

// beside runs do on a goroutine that Close waits for. ctx ends when nothing
// more may be tried.
func (l *Ledger) beside(work string, about slog.Attr, do func(ctx context.Context) error) {
	l.work.Go(func() { l.Background.Run(l.ctx, work, do, about) })
}

// attr names op in the log.
func (op *Operation) attr() slog.Attr {
	return slog.String("operation_id", typeid.Format(typeid.Operation, op.ID))
}

// saveIDs commits an outcome's ids by themselves, where the database refused
// the whole of it: whatever is wrong with the rest, they are kept.
func (l *Ledger) saveIDs(op *Operation, out Outcome) {
	if len(out.IDs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	b := l.DB.NewBatch(op.TenantID)
	l.queueIDs(b, op, out)
	if err := l.DB.Run(ctx, b); err != nil {
		l.Log.Error("ids not committed yet", "operation_id", typeid.Format(typeid.Operation, op.ID), "err", err)
	}
}

func requestPlace(op *Operation) secret.Place {
	return secret.Place{Table: "operations", Column: "request_ct", Tenant: op.TenantID, Row: op.ID.String()}
}
