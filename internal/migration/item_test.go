package migration

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/wechat"
)

// ready is a store that WeChat lists with all that add_store needs, but for
// the licence.
func ready(upgrade int) Shown {
	return Shown{List: isListed, Upgrade: upgrade, Available: "approved",
		Details: Details{MapPoiID: "1", Photos: []string{"http://mmbiz.qpic.cn/a"}, ContactPhone: "020-1234567", BusinessHours: "09:00-18:00"}}
}

var licensed = Policy{Defaults: Details{CredentialNumber: "c"}}

func TestPlan(t *testing.T) {
	t.Parallel()
	without := func(change func(*Shown)) Shown {
		s := ready(wechat.UpgradePending)
		change(&s)
		return s
	}
	deleting := licensed
	deleting.DeleteNotAllowed = true
	for name, tc := range map[string]struct {
		policy  Policy
		item    Item
		status  ItemStatus
		blocked []string
		deletes bool
	}{
		"ready":                        {licensed, Item{Shown: ready(wechat.UpgradePending)}, Pending, nil, false},
		"failed before":                {licensed, Item{Shown: ready(wechat.UpgradeFailed)}, Pending, nil, false},
		"under way elsewhere":          {licensed, Item{Shown: ready(wechat.UpgradeRunning)}, InReview, nil, false},
		"done":                         {licensed, Item{Shown: ready(wechat.UpgradeDone), Action: Delete}, Migrated, nil, false},
		"barred":                       {licensed, Item{Shown: ready(wechat.UpgradeNotAllowed)}, Blocked, []string{NeedsConsent}, false},
		"barred, consent for all":      {deleting, Item{Shown: ready(wechat.UpgradeNotAllowed)}, Pending, nil, true},
		"barred, consent for it":       {licensed, Item{Shown: ready(wechat.UpgradeNotAllowed), Action: Delete}, Pending, nil, true},
		"barred, but to be migrated":   {deleting, Item{Shown: ready(wechat.UpgradeNotAllowed), Action: Migrate}, Blocked, []string{NeedsConsent}, false},
		"barred, skipped":              {deleting, Item{Shown: ready(wechat.UpgradeNotAllowed), Action: Skip}, Skipped, nil, false},
		"to be deleted":                {licensed, Item{Shown: ready(wechat.UpgradePending), Action: Delete}, Pending, nil, true},
		"never listed":                 {licensed, Item{}, Blocked, []string{NeedsListing}, false},
		"never listed, skipped":        {licensed, Item{Action: Skip}, Skipped, nil, false},
		"gone":                         {licensed, Item{Shown: Shown{List: isGone}}, Deleted, nil, false},
		"no licence":                   {Policy{}, Item{Shown: ready(wechat.UpgradePending)}, Blocked, []string{NeedsCredential}, false},
		"a licence of its own":         {Policy{}, Item{Shown: ready(wechat.UpgradePending), Given: Details{CredentialNumber: "d"}}, Pending, nil, false},
		"no place":                     {licensed, Item{Shown: without(func(s *Shown) { s.MapPoiID = "" })}, Blocked, []string{NeedsMapPoi}, false},
		"a place of its own":           {licensed, Item{Shown: without(func(s *Shown) { s.MapPoiID = "" }), Given: Details{MapPoiID: "2"}}, Pending, nil, false},
		"neither photos nor a phone":   {licensed, Item{Shown: without(func(s *Shown) { s.Photos, s.ContactPhone = nil, "" })}, Blocked, []string{NeedsPhotos, NeedsPhone}, false},
		"no hours":                     {licensed, Item{Shown: without(func(s *Shown) { s.BusinessHours = "" })}, Blocked, []string{NeedsHours}, false},
		"not approved as a legacy one": {licensed, Item{Shown: without(func(s *Shown) { s.Available = "in_review" })}, Blocked, []string{NeedsApproval}, false},
	} {
		got := tc.policy.Plan(tc.item)
		if diff := cmp.Diff(tc.blocked, got.BlockedBy); got.Status != tc.status || diff != "" {
			t.Errorf("%s: %s, want %s; blocked by (-want +got):\n%s", name, got.Status, tc.status, diff)
		}
		if deletes := got.Status == Pending && tc.policy.deletes(got); deletes != tc.deletes {
			t.Errorf("%s: deletes %v, want %v", name, deletes, tc.deletes)
		}
	}
}

func TestSettle(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		item    Item
		outcome Outcome
		want    ItemStatus
	}{
		"taken":                          {Item{Status: Submitting, Ours: true, Attempt: 1}, Outcome{Operation: "succeeded"}, InReview},
		"taken and decided":              {Item{Status: Submitting, Ours: true, Attempt: 1}, Outcome{Operation: "succeeded", Audit: "approved"}, Migrated},
		"unknown":                        {Item{Status: Submitting, Ours: true, Attempt: 1}, Outcome{Operation: "reconciling"}, Submitting},
		"refused":                        {Item{Status: Submitting, Ours: true, Attempt: 1}, Outcome{Operation: "failed"}, Failed},
		"certainly nothing happened":     {Item{Status: Submitting, Ours: true, Attempt: 1}, Outcome{Operation: "failed", Retryable: true}, Pending},
		"nothing happened, three times":  {Item{Status: Submitting, Ours: true, Attempt: 3}, Outcome{Operation: "failed", Retryable: true}, Failed},
		"nobody can tell":                {Item{Status: Submitting, Ours: true, Attempt: 1}, Outcome{Operation: "needs_attention"}, Blocked},
		"a person has told":              {Item{Status: Blocked, BlockedBy: []string{NeedsResolution}, Ours: true, Attempt: 1}, Outcome{Operation: "succeeded"}, InReview},
		"a person has told: deleted":     {Item{Status: Blocked, BlockedBy: []string{NeedsResolution}, Ours: true, Deletes: true, Attempt: 1}, Outcome{Operation: "succeeded"}, Deleted},
		"deleted":                        {Item{Status: Deleting, Deletes: true, Ours: true, Attempt: 1}, Outcome{Operation: "succeeded"}, Deleted},
		"rejected":                       {Item{Status: InReview, Ours: true, Attempt: 1}, Outcome{Operation: "succeeded", Audit: "rejected", Reason: "too dark"}, Failed},
		"somebody else's, of an old one": {Item{Status: InReview, Attempt: 1}, Outcome{Audit: "rejected"}, InReview},
	} {
		tc.item.Shown = ready(wechat.UpgradePending)
		got := licensed.Settle(tc.item, tc.outcome)
		if got.Status != tc.want {
			t.Errorf("%s: %s, want %s", name, got.Status, tc.want)
		}
		if tc.outcome.Reason != "" && got.Shown.Comment != tc.outcome.Reason {
			t.Errorf("%s: comment %q", name, got.Shown.Comment)
		}
	}
}

// Whatever WeChat shows, writes come to and people say, in any order: nothing
// is begun beside a write whose end is unknown, nothing is deleted without a
// person's word, what is final stays, and a migration is completed only when
// WeChat's newest list bears it out.
func TestMigrationMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{DeleteNotAllowed: rapid.Bool().Draw(t, "consent for all")}
		if rapid.Bool().Draw(t, "licences") {
			p.Defaults.CredentialNumber = "c"
		}
		items := make([]Item, rapid.IntRange(0, 3).Draw(t, "stores"))
		listed, want := false, WantRun
		now := Stand(want, listed, count(items), false)
		open := make([]bool, len(items)) // a write was begun, and its end not told
		draw := func(i int) *Shown {
			if rapid.IntRange(0, 9).Draw(t, "absent") == 0 {
				return nil
			}
			s := ready(rapid.IntRange(wechat.UpgradePending, wechat.UpgradeNotAllowed).Draw(t, "upgrade"))
			if rapid.Bool().Draw(t, "no place") {
				s.MapPoiID = ""
			}
			return &s
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if now.Final() {
				break
			}
			if len(items) == 0 || rapid.IntRange(0, 3).Draw(t, "list") == 0 {
				listed = true
				for i, before := range items {
					items[i] = p.See(before, draw(i))
					check(t, p, before, items[i], open[i])
				}
			} else if i := rapid.IntRange(0, len(items)-1).Draw(t, "store"); listed {
				before := items[i]
				switch rapid.SampledFrom([]string{"claim", "outcome", "change", "unclaim"}).Draw(t, "step") {
				case "claim":
					if items[i] = p.Plan(before); before.Status != Pending || items[i].Status != Pending {
						items[i] = before
						break
					}
					if open[i] {
						t.Fatalf("begun again beside one whose end is unknown: %+v", before)
					}
					items[i] = p.Claim(items[i])
					if items[i].Deletes && items[i].Action != Delete && (!p.DeleteNotAllowed || items[i].Shown.Upgrade != wechat.UpgradeNotAllowed) {
						t.Fatalf("deleted without a word: %+v", items[i])
					}
					if items[i].Attempt != before.Attempt+1 || items[i].Ours {
						t.Fatalf("an attempt that is none: %+v", items[i])
					}
					open[i] = true
				case "outcome":
					if before.Attempt == 0 || !before.Ours && !open[i] {
						break
					}
					o := Outcome{Operation: "succeeded"}
					if open[i] {
						before.Ours = true
						o.Operation = rapid.SampledFrom([]string{"reconciling", "needs_attention", "succeeded", "failed"}).Draw(t, "operation")
						o.Retryable = rapid.Bool().Draw(t, "retryable")
						open[i] = o.Operation == "reconciling" || o.Operation == "needs_attention"
					}
					if o.Operation == "succeeded" && !before.Deletes {
						o.Audit = rapid.SampledFrom([]string{"", "in_review", "approved", "rejected"}).Draw(t, "audit")
					}
					items[i] = p.Settle(before, o)
				case "unclaim":
					if open[i] && !before.Ours { // certainly not sent
						items[i], open[i] = p.Unclaim(before), false
					}
				case "change":
					action := rapid.SampledFrom([]*Action{nil, new(Migrate), new(Skip), new(Delete)}).Draw(t, "action")
					next, err := p.Change(before, action, Details{CredentialNumber: rapid.SampledFrom([]string{"", "d"}).Draw(t, "licence")})
					if fixed := slices.Contains([]ItemStatus{Submitting, Deleting, InReview, Migrated, Deleted}, before.Status) || before.underWay(); errors.Is(err, ErrItem) != fixed {
						t.Fatalf("change of %+v: %v", before, err)
					}
					if err == nil {
						items[i] = next
					}
				}
				check(t, p, before, items[i], open[i])
			}
			want = rapid.SampledFrom([]Desired{want, WantRun, WantPause, WantPlan}).Draw(t, "wanted")
			c := count(items)
			now = Stand(want, listed, c, verified(items))
			if now == Completed || now == Incomplete {
				for i, it := range items {
					gone := it.Shown.List != isListed
					if open[i] || it.Status != Skipped && !gone && it.Shown.Upgrade != wechat.UpgradeDone || it.Status == Skipped && now == Completed {
						t.Fatalf("%s with %+v", now, it)
					}
				}
			}
			if now == Halted && (c.Waiting() == 0 || slices.Contains(open, true) && !slices.ContainsFunc(items, Item.underWay)) {
				t.Fatalf("blocked with %v", items)
			}
			if c.Percent() < 0 || c.Percent() > 100 || PhaseOf(now, listed, c) == "" {
				t.Fatalf("%v: %d%%", c, c.Percent())
			}
		}
	})
}

func check(t *rapid.T, p Policy, before, after Item, open bool) {
	final := before.Status == Migrated || before.Status == Deleted
	if final && after.Status != before.Status {
		t.Fatalf("%s became %s", before.Status, after.Status)
	}
	if open != after.underWay() {
		t.Fatalf("a write is open: %v, and the item says %+v", open, after)
	}
	if (after.Status == Blocked) != (len(after.BlockedBy) > 0) {
		t.Fatalf("blocked by nothing, or for nothing: %+v", after)
	}
	if after.Status == Pending && !p.deletes(after) {
		if d := p.Details(after); d.MapPoiID == "" || d.CredentialNumber == "" || len(d.Photos) == 0 || d.ContactPhone == "" || d.BusinessHours == "" {
			t.Fatalf("pending without what it needs: %+v", after)
		}
	}
}

// What a list shows again is no news: an item that was saved and read meets it
// unchanged. News would have WeChat's list read every minute for days.
func TestTheSameListAgainMovesNothing(t *testing.T) {
	t.Parallel()
	for name, i := range map[string]Item{
		"pending":  {Action: Migrate, Given: Details{CredentialNumber: "c"}},
		"blocked":  {},
		"skipped":  {Action: Skip},
		"deleting": {Action: Delete, Status: Deleting},
	} {
		list := ready(wechat.UpgradePending)
		kept := item{Item: Policy{}.See(i, &list)}
		p, err := kept.save()
		if err != nil {
			t.Fatal(err)
		}
		read, err := itemOf(dbsqlc.StoreMigrationItem{Status: p.Status, BlockedBy: p.BlockedBy, Action: p.Action, Given: p.Given, Shown: p.Shown})
		if err != nil {
			t.Fatal(err)
		}
		if again := (Policy{}).See(read.Item, &list); !reflect.DeepEqual(again, read.Item) {
			t.Errorf("%s: %+v is news beside %+v", name, again, read.Item)
		}
	}
}
