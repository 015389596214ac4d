package ledger

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// StoreProgramFields are what is known of an application for a Store Mini
// Program besides its ids and status. WeChat shows none of them: one that was
// made elsewhere has none.
type StoreProgramFields struct {
	PrimaryCategoryID       string   `json:"primary_category_id,omitempty"`
	SecondaryCategoryID     string   `json:"secondary_category_id,omitempty"`
	Nickname                string   `json:"nickname,omitempty"`
	Introduction            string   `json:"introduction,omitempty"`
	HeadImageMediaID        string   `json:"head_image_media_id,omitempty"`
	QualificationMediaIDs   []string `json:"qualification_media_ids,omitempty"`
	OrganizationCodeMediaID *string  `json:"organization_code_media_id,omitempty"`
	OtherFileMediaIDs       []string `json:"other_file_media_ids,omitempty"`
	// AppID is the account's own. There is one program an account: by it ours
	// is known where WeChat shows one whose audit_id it has not told us.
	AppID string `json:"appid,omitempty"`
}

// A StoreProgram is our record of an application, with its newest audit and
// write. A merchant's newest one counts.
type StoreProgram = Resource[StoreProgramFields]

var storeProgramType = Type{
	Name: "store_program", Prefix: typeid.StoreProgram, Scope: "store-program", Number: AuditID,
	Creation: "store_program.apply", Natural: "appid", Each: inventoryOfProgram,
	After: func(row dbsqlc.ResourcesToProjectRow, s Shown) string {
		if row.Origin == "discovered" {
			return s.Status
		}
		return row.Status // its audit tells more
	},
}

// programShown are the statuses of get_merchant_audit_info (platform.md §11.2):
// what the merchant shows, and what they say of an audit.
var programShown = map[wechat.Int]struct {
	status string
	audit  AuditStatus
}{
	wechat.MerchantNotSubmitted: {"not_submitted", ""},
	wechat.MerchantApproved:     {"approved", Approved},
	wechat.MerchantInAudit:      {"in_review", InReview},
	wechat.MerchantFailed:       {"rejected", Rejected},
	wechat.MerchantAdminRefused: {"rejected_by_admin", AdminRejected},
}

// storeProgramApply is POST /v1/merchants/{m}/store-program: wxa/apply_merchant
// (document 000 §4.2). Its answer gives no audit_id.
//
// WeChat refuses a second application while the first is open (85050), so an
// attempt may be repeated, and that refusal of the repetition proves the first.
var storeProgramApply = register(&Kind{
	Name: "store_program.apply", Subject: "store_program", Endpoint: wechat.ApplyMerchant, AuditKind: "store_program",
	Judge: judgeStoreProgramApply,
	Settle: func(b *postgres.Batch, op *Operation, out Outcome) error {
		return storeProgramType.settleCreation(b, op, out, "awaiting_admin_confirmation", nil)
	},
	Reopen: reopen,
	Prove:  proveStoreProgramApply,
})

// programBefore is what WeChat said before an application: it may go on saying
// it until the administrator has confirmed the new one.
type programBefore struct {
	AuditID string     `json:"audit_id"`
	Status  wechat.Int `json:"status"`
}

// ApplyStoreProgram applies for a Store Mini Program. Errors besides those of
// Do: audit_in_progress where the merchant has an application under way.
func (l *Ledger) ApplyStoreProgram(ctx context.Context, r Request, f StoreProgramFields) (StoreProgram, Done, error) {
	seen := false
	if r.IdempotencyKey != "" && !r.ValidateOnly {
		var err error
		if _, seen, err = l.seen(ctx, Write{Request: r}); err != nil {
			return StoreProgram{}, Done{}, err
		}
	}
	var before programBefore
	if !seen { // else the answer is that of the first request
		if err := l.noProgramOpen(ctx, r.Merchant); err != nil {
			return StoreProgram{}, Done{}, err
		}
	}
	if !seen && !r.ValidateOnly {
		asked := time.Now()
		reply, err := l.askProgram(ctx, r.Merchant)
		if err != nil {
			return StoreProgram{}, Done{}, err
		}
		// What is there must be known as what it is before ours stands beside it.
		if _, err := l.StorePrograms.project(ctx, r.Merchant, shownProgram(r.Merchant, reply), asked); err != nil {
			return StoreProgram{}, Done{}, err
		}
		before = programBefore{string(reply.Data.AuditID), reply.Data.Status}
	}
	body := wechat.ApplyMerchantRequest{
		FirstCatID: json.Number(f.PrimaryCategoryID), SecondCatID: json.Number(f.SecondaryCategoryID), QualificationList: f.QualificationMediaIDs,
		HeadimgMediaID: f.HeadImageMediaID, Nickname: f.Nickname, Intro: f.Introduction, OtherFiles: f.OtherFileMediaIDs,
	}
	if f.OrganizationCodeMediaID != nil {
		body.OrgCode = *f.OrganizationCodeMediaID
	}
	f.AppID = r.Merchant.AppID
	media := slices.Concat([]MediaRef{{"/head_image_media_id", f.HeadImageMediaID}, {"/organization_code_media_id", deref(f.OrganizationCodeMediaID)}},
		mediaList("/qualification_media_ids", f.QualificationMediaIDs), mediaList("/other_file_media_ids", f.OtherFileMediaIDs))
	return l.StorePrograms.create(ctx, r, creation{Kind: storeProgramApply, Body: body, Fields: f, Natural: "program",
		Baseline: before, Media: media})
}

// noProgramOpen refuses a second application beside one that is under way.
func (l *Ledger) noProgramOpen(ctx context.Context, m authorizer.Merchant) error {
	p, err := l.newestProgram(ctx, m)
	if problem.HasCode(err, problem.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	switch p.Status {
	case "submitting", "outcome_unknown", "awaiting_admin_confirmation", "in_review":
		return problem.Of(problem.CodeAuditInProgress)
	}
	return nil
}

// CurrentStoreProgram is the merchant's newest application that WeChat did not
// refuse. Errors: not_found.
func (l *Ledger) CurrentStoreProgram(ctx context.Context, m authorizer.Merchant) (StoreProgram, error) {
	p, err := l.newestProgram(ctx, m)
	if err != nil {
		return p, err
	}
	return l.StorePrograms.Get(ctx, m.TenantID, p.ID)
}

// newestProgram is CurrentStoreProgram without its newest write.
func (l *Ledger) newestProgram(ctx context.Context, m authorizer.Merchant) (StoreProgram, error) {
	rows, err := l.StorePrograms.List(ctx, m.TenantID, Filter{Merchants: []uuid.UUID{m.ID}, Limit: 1})
	if err != nil {
		return StoreProgram{}, err
	}
	if len(rows) == 0 {
		return StoreProgram{}, problem.Of(problem.CodeNotFound)
	}
	return rows[0], nil
}

// underAudit is WeChat's "Under audit. Do not submit again".
const underAudit = 85050

func judgeStoreProgramApply(op *Operation, class wechat.Class, err *wechat.Error) wechat.Class {
	if err.Code != underAudit || op.Attempt == 1 {
		return class
	}
	var before programBefore
	if json.Unmarshal(op.Baseline, &before) == nil && before.Status != wechat.MerchantInAudit && before.Status != wechat.MerchantApproved {
		return wechat.Executed // our own first attempt is under audit
	}
	return class
}

// proveStoreProgramApply: until the administrator has confirmed, WeChat shows
// what it showed before, so that finding nothing new is no proof; the attempt
// that follows is (judgeStoreProgramApply).
func proveStoreProgramApply(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var before programBefore
	if err := json.Unmarshal(op.Baseline, &before); err != nil {
		return Proof{}, err
	}
	now, err := l.askProgram(ctx, op.Merchant)
	if err != nil {
		return Proof{}, err
	}
	if id := string(now.Data.AuditID); id != "" && id != before.AuditID {
		return Proof{Verdict: Present, IDs: []ID{{AuditID, id}}}, nil
	}
	return Proof{Verdict: Unshown}, nil
}

// The event is apply_merchant_audit_info (document 000 §4.2).
var _ = registerAudit("store_program", auditKind{
	Writes: []*Kind{storeProgramApply}, Type: &storeProgramType, Event: outbox.StoreProgramAuditDecided,
	First: AwaitingAdmin, Deadline: 24 * time.Hour, Poll: pollStoreProgram,
	Waits: []time.Duration{10 * time.Minute, time.Hour, 6 * time.Hour}, Usual: 10 * 24 * time.Hour,
	Decide: func(n News) *decision {
		open := []string{"submitting", "outcome_unknown", "awaiting_admin_confirmation"}
		switch n.Status {
		case InReview:
			return &decision{Status: "in_review", Upstream: new(int32(wechat.MerchantInAudit)), States: append(open, "expired")}
		case Expired:
			return &decision{Status: "expired", States: open}
		case Approved:
			return &decision{Status: "approved", Upstream: new(int32(wechat.MerchantApproved)), States: append(open, "in_review", "expired", "failed")}
		case AdminRejected:
			return &decision{Status: "rejected_by_admin", Upstream: new(int32(wechat.MerchantAdminRefused)), States: append(open, "in_review", "expired")}
		case Rejected:
			return &decision{Status: "rejected", Upstream: new(int32(wechat.MerchantFailed)), States: append(open, "in_review", "expired")}
		}
		return nil
	},
})

// askProgram asks WeChat where the merchant's program stands, and keeps that
// with the merchant.
func (l *Ledger) askProgram(ctx context.Context, m authorizer.Merchant) (wechat.GetMerchantAuditInfoReply, error) {
	reply, err := authorizer.Call[wechat.GetMerchantAuditInfoReply](ctx, l.Authorizer, m, wechat.GetMerchantAuditInfo, nil, nil)
	if reply.Data.AuditID == "0" {
		reply.Data.AuditID = "" // there is none
	}
	shown, ok := programShown[reply.Data.Status]
	if err != nil || !ok { // a number that no document names tells us nothing
		return reply, err
	}
	b := l.DB.NewBatch(m.TenantID)
	b.Queue(dbsqlc.MerchantStoreProgram, dbsqlc.MerchantStoreProgramParams{StoreProgram: &shown.status, TenantID: m.TenantID, ID: m.ID})
	return reply, l.DB.Run(ctx, b)
}

// HasStoreProgram asks WeChat whether the merchant's Store Mini Program was
// approved.
func (l *Ledger) HasStoreProgram(ctx context.Context, m authorizer.Merchant) (bool, error) {
	reply, err := l.askProgram(ctx, m)
	return reply.Data.Status == wechat.MerchantApproved, err
}

// pollStoreProgram reads how the application stands, and gives up one that the
// administrator has let lie for a day.
func pollStoreProgram(ctx context.Context, l *Ledger, m authorizer.Merchant, audits []dbsqlc.Audit) error {
	asked := time.Now()
	reply, err := l.askProgram(ctx, m)
	if err != nil {
		return err
	}
	return l.decideProgram(ctx, m, audits, reply, asked)
}

// decideProgram applies what WeChat said, when it was asked, of these audits.
func (l *Ledger) decideProgram(ctx context.Context, m authorizer.Merchant, audits []dbsqlc.Audit, reply wechat.GetMerchantAuditInfoReply, asked time.Time) error {
	id := string(reply.Data.AuditID)
	for _, a := range audits {
		n := News{Kind: a.Kind, Source: FromPoll, At: asked}
		told := programShown[reply.Data.Status].audit
		fresh, err := l.programNews(ctx, a, id)
		switch {
		case err != nil:
			return err
		case told != "" && fresh && a.SubmittedAt.Before(asked):
			n.AuditID, n.Number, n.Status, n.Reason = id, id, told, reply.Data.Reason
		case a.DeadlineAt != nil && asked.After(*a.DeadlineAt) && AuditStatus(a.Status) == AwaitingAdmin:
			n.Status = Expired
		default:
			continue
		}
		if err := l.applyPolled(ctx, m, n); err != nil {
			return err
		}
	}
	return nil
}

// programNews reports whether what WeChat shows under this audit_id is about
// audit a: WeChat may go on showing the application before it.
func (l *Ledger) programNews(ctx context.Context, a dbsqlc.Audit, id string) (bool, error) {
	if id == "" || a.OperationID == nil {
		return false, nil
	}
	if a.WechatAuditID != nil {
		return *a.WechatAuditID == id, nil
	}
	op, err := l.load(ctx, a.TenantID, *a.OperationID, nil)
	if err != nil {
		return false, err
	}
	var before programBefore
	err = json.Unmarshal(op.Baseline, &before)
	return before.AuditID != id, err
}

// RefreshStoreProgram asks WeChat how the merchant's program stands, where we
// may, and brings our record up to it.
func (l *Ledger) RefreshStoreProgram(ctx context.Context, m authorizer.Merchant) error {
	if !l.Authorizer.May(m, wechat.GetMerchantAuditInfo) {
		return nil
	}
	asked := time.Now()
	reply, err := l.askProgram(ctx, m)
	if err != nil {
		return err
	}
	if _, err := l.StorePrograms.project(ctx, m, shownProgram(m, reply), asked); err != nil {
		return err
	}
	p, err := l.newestProgram(ctx, m)
	if err != nil || p.Audit == nil || AuditStatus(p.Audit.Status).Final() {
		return err
	}
	audit, err := l.Audit(ctx, m.TenantID, p.Audit.ID)
	if err != nil {
		return err
	}
	return l.decideProgram(ctx, m, []dbsqlc.Audit{audit.Audit}, reply, asked)
}

// inventoryOfProgram yields the program that the merchant has at WeChat, if it
// has one.
func inventoryOfProgram(ctx context.Context, l *Ledger, m authorizer.Merchant, yield func(Shown)) (bool, error) {
	if m.AccountType == authorizer.MiniProgram || !l.Authorizer.May(m, wechat.GetMerchantAuditInfo) {
		return false, nil // it can't have one that we may see
	}
	reply, err := l.askProgram(ctx, m)
	if err != nil {
		return true, err
	}
	for _, s := range shownProgram(m, reply) {
		yield(s)
	}
	return true, nil
}

// shownProgram is the program in an answer, or none.
func shownProgram(m authorizer.Merchant, reply wechat.GetMerchantAuditInfoReply) []Shown {
	shown, id := programShown[reply.Data.Status], string(reply.Data.AuditID)
	if shown.audit == "" || id == "" {
		return nil
	}
	return []Shown{{Number: id, Natural: m.AppID, Upstream: int(reply.Data.Status), Status: shown.status,
		Fields: StoreProgramFields{AppID: m.AppID}, Hash: func() []byte { return hashOf(reply.Data) }}}
}

// storeProgramModify is PATCH /v1/merchants/{m}/store-program:
// wxa/modify_merchant (document 000 §4.4). WeChat shows neither picture nor
// introduction, so an attempt whose answer was lost can't be proven; the same
// one again changes nothing. A refusal that passes with time, as that the month's
// changes are used up (85049), doesn't tell what became of the attempt before:
// it may have been the last that was allowed.
var storeProgramModify = register(&Kind{
	Name: "store_program.modify", Subject: "store_program", Endpoint: wechat.ModifyMerchant,
	Settle: func(b *postgres.Batch, op *Operation, out Outcome) error {
		if out.Class != wechat.Executed {
			return nil
		}
		var sent wechat.ModifyMerchantRequest
		if err := op.Unmarshal(&sent); err != nil {
			return err
		}
		changed, err := json.Marshal(StoreProgramFields{HeadImageMediaID: sent.HeadimgMediaID, Introduction: sent.Intro})
		b.Queue(dbsqlc.ResourceChanged, dbsqlc.ResourceChangedParams{TenantID: op.TenantID, ID: *op.SubjectID, Changed: changed})
		return err
	},
	Prove: func(context.Context, *Ledger, *Operation) (Proof, error) { return Proof{Verdict: Unshown}, nil },
})

// ModifyStoreProgram changes picture or introduction; "" leaves one as it is.
// Errors besides those of Do: not_found, version_conflict,
// store_program_required.
func (l *Ledger) ModifyStoreProgram(ctx context.Context, r Request, id uuid.UUID, version *int64, headImage, introduction string) (StoreProgram, Done, error) {
	w := change{Kind: storeProgramModify, ID: id, Version: version, States: []string{"approved"}, Refusal: problem.CodeStoreProgramRequired,
		Media: []MediaRef{{"/head_image_media_id", headImage}}}
	return l.StorePrograms.change(ctx, r, w, func(StoreProgram) (any, error) {
		return wechat.ModifyMerchantRequest{HeadimgMediaID: headImage, Intro: introduction}, nil
	})
}
