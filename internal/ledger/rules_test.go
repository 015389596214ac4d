package ledger

import (
	"flag"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// Properties are tried on ten thousand cases; -rapid.checks says otherwise.
func init() { _ = flag.Set("rapid.checks", "10000") }

var statuses = []AuditStatus{Submitting, AwaitingAdmin, UnknownOutcome, InReview, SubmitFailed, Expired, Approved, Rejected, AdminRejected, Withdrawn}

// News may come in any order and any number of times: an audit only moves
// forward, a final word stays, and the end doesn't depend on repetitions.
func TestAuditMovesForward(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		news := rapid.SliceOf(rapid.SampledFrom(statuses)).Draw(t, "news")
		s := Submitting
		for _, n := range news {
			next := s.Advance(n)
			if next.rank() < s.rank() {
				t.Fatalf("%s moved back to %s by %s", s, next, n)
			}
			if s.Final() && next != s {
				t.Fatalf("%s is final and became %s", s, next)
			}
			if next.Advance(n) != next {
				t.Fatalf("hearing %s twice moves %s to %s", n, next, next.Advance(n))
			}
			s = next
		}
	})
}

// A word of WeChat's that comes after "expired" is truer.
func TestExpiredIsNotTheLastWord(t *testing.T) {
	t.Parallel()
	for _, s := range []AuditStatus{Expired, SubmitFailed} {
		if got := s.Advance(Approved); got != Approved {
			t.Errorf("%s, then approved = %s", s, got)
		}
	}
	if AuditStatus("made up").rank() >= 0 {
		t.Error("a status that isn't ours has a rank")
	}
}

func TestEventStatus(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		event, number string
		want          AuditStatus
		ok            bool
	}{
		{"add_store_audit_info", "1", Approved, true},
		{"add_store_audit_info", "3", Rejected, true},
		{"add_store_audit_info", "4", "", false},
		{"add_store_audit_info", "0", "", false},
		{"modify_store_audit_info", "1", Approved, true},
		{"modify_store_audit_info", "3", Rejected, true},
		{"apply_merchant_audit_info", "4", AdminRejected, true},
		{"add_store_audit_info", "99", "", false},
		{"add_store_audit_info", "", "", false},
		{"add_store_audit_info", "01", "", false},
	} {
		if got, ok := EventStatus(tc.event, tc.number); got != tc.want || ok != tc.ok {
			t.Errorf("EventStatus(%s, %q) = %q, %v, want %q, %v", tc.event, tc.number, got, ok, tc.want, tc.ok)
		}
	}
}

// The schedule of design reliability.md §4.
func TestDefaultSchedule(t *testing.T) {
	t.Parallel()
	sent := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var since *time.Time
	var looks []time.Duration
	now := sent
	for {
		now = DefaultSchedule.Next(sent, now, since)
		looks = append(looks, now.Sub(sent))
		certain, s := DefaultSchedule.Absence(sent, now, since)
		if since = s; certain {
			break
		}
		if len(looks) > 10 {
			t.Fatalf("absence is never certain: looks at %v", looks)
		}
	}
	if len(looks) != 4 || looks[0] != 2*time.Second || looks[1] != 10*time.Second || looks[2] != 42*time.Second || looks[3] != 103*time.Second {
		t.Errorf("looks until absence is certain at %v, want 2, 10, 42 and 103 s", looks)
	}
}

// Whenever the looks happen, absence is certain only after two that found
// nothing, far enough apart and both late enough.
func TestAbsenceNeedsTwoLateLooks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := DefaultSchedule.Scaled(rapid.Float64Range(0.01, 2).Draw(t, "scale"))
		sent := time.Unix(1_800_000_000, 0)
		at := sent
		var since *time.Time
		var counted []time.Time
		for range rapid.IntRange(1, 12).Draw(t, "looks") {
			at = at.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(t, "gap")))
			certain, next := s.Absence(sent, at, since)
			if at.Sub(sent) >= s.Settled {
				counted = append(counted, at)
			}
			want := len(counted) > 1 && at.Sub(counted[0]) >= s.Apart
			if certain != want {
				t.Fatalf("absence at %s after %v = %v, want %v", at.Sub(sent), counted, certain, want)
			}
			if since = next; (since == nil) != (len(counted) == 0) {
				t.Fatalf("since = %v with counted looks %v", since, counted)
			}
		}
	})
}

// The next look lies ahead, always.
func TestNextLookLiesAhead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sent := time.Unix(1_800_000_000, 0)
		now := sent.Add(time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "later")))
		next := DefaultSchedule.Next(sent, now, nil)
		if !next.After(now) || next.Sub(now) > DefaultSchedule.Every {
			t.Fatalf("at %s the next look is %s ahead", now.Sub(sent), next.Sub(now))
		}
	})
}

// What an attempt came to: ids first, whatever the errcode says.
func TestJudge(t *testing.T) {
	t.Parallel()
	first, second := &Operation{Kind: storeCreate}, &Operation{Kind: storeCreate}
	first.Attempt, second.Attempt = 1, 2
	gone := &Operation{Kind: storeDelete}
	reply := func(s string) wechat.Reply { return wechat.Reply{Status: 200, Body: []byte(s)} }
	for name, tc := range map[string]struct {
		op        *Operation
		reply     wechat.Reply
		err       error
		class     wechat.Class
		audit     string
		code      string
		retryable bool
	}{
		"executed":                   {first, reply(`{"errcode":0,"data":{"audit_id":111}}`), nil, wechat.Executed, "111", "", false},
		"refused, yet with an id":    {first, reply(`{"errcode":85042,"data":{"audit_id":"112"}}`), nil, wechat.Refused, "112", "nearby_location_limit", false},
		"broken, yet with an id":     {first, wechat.Reply{Status: 502, Body: []byte(`{"data":{"audit_id":113}}`)}, nil, wechat.Ambiguous, "113", "", false},
		"there already":              {first, reply(`{"errcode":85040}`), nil, wechat.Refused, "", "store_already_linked", false},
		"there already, by us maybe": {second, reply(`{"errcode":85040}`), nil, wechat.Ambiguous, "", "", false},
		"gone already":               {gone, reply(`{"errcode":65115}`), nil, wechat.Executed, "", "", false},
		"not deleted":                {gone, reply(`{"errcode":-1}`), nil, wechat.Refused, "", "store_delete_failed", true},
		"token":                      {first, reply(`{"errcode":40001}`), nil, wechat.TokenRejected, "", "merchant_token_unavailable", true},
		"not sent":                   {first, wechat.Reply{}, &wechat.Error{Class: wechat.NotSent}, wechat.NotSent, "", "", true},
		"timed out":                  {first, wechat.Reply{}, &wechat.Error{Class: wechat.Ambiguous}, wechat.Ambiguous, "", "", false},
		"no token to be had":         {first, wechat.Reply{}, problem.Of(problem.CodeComponentTicketStale), wechat.NotSent, "", "component_ticket_stale", true},
	} {
		out := judge(tc.op, tc.reply, tc.err, FromResponse)
		if out.Class != tc.class || out.ID(AuditID) != tc.audit {
			t.Errorf("%s: judged %v with audit %q, want %v with %q", name, out.Class, out.ID(AuditID), tc.class, tc.audit)
		}
		if tc.code != "" && (out.Err == nil || out.Err.Code != tc.code) {
			t.Errorf("%s: error %v, want %s", name, out.Err, tc.code)
		}
		if tc.retryable && (out.Err == nil || !out.Err.Retryable) {
			t.Errorf("%s: can't be retried: %v", name, out.Err)
		}
		if (out.Class == wechat.Executed) != (out.Err == nil) {
			t.Errorf("%s: class %v with error %v", name, out.Class, out.Err)
		}
	}
}
