package migration

import (
	"cmp"
	"errors"
	"regexp"
	"slices"

	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/wechat"
)

// An ItemStatus is where one legacy store of a migration stands.
type ItemStatus string

// The statuses. Migrated and Deleted are final.
const (
	Pending    ItemStatus = "pending"    // will be submitted, or deleted, when the migration runs
	Blocked    ItemStatus = "blocked"    // waits for a person: see BlockedBy
	Submitting ItemStatus = "submitting" // its add_store is under way, or its outcome unknown
	InReview   ItemStatus = "in_review"  // WeChat took it and reviews it
	Migrated   ItemStatus = "migrated"
	Failed     ItemStatus = "failed"   // WeChat refused or rejected it
	Deleting   ItemStatus = "deleting" // its delpoi is under way, or its outcome unknown
	Deleted    ItemStatus = "deleted"  // by us, or it is gone from WeChat's list
	Skipped    ItemStatus = "skipped"
)

// An Action is what a person wants for one store; "": what its state asks for.
type Action string

// The actions. Delete is consent to delete this very store.
const (
	Migrate Action = "migrate"
	Skip    Action = "skip"
	Delete  Action = "delete"
)

// Why an item is blocked.
const (
	NeedsMapPoi       = "map_poi_required"
	NeedsPhotos       = "photos_required"
	NeedsPhone        = "contact_phone_required"
	NeedsHours        = "business_hours_required"
	NeedsCredential   = "credential_number_required" //nolint:gosec // the name of a reason
	NeedsConsent      = "consent_required"           // WeChat lets it not move: it can only be deleted
	NeedsApproval     = "store_not_approved"         // WeChat's Store Management has not approved it
	NeedsListing      = "not_listed"                 // WeChat's list doesn't have it
	NeedsResolution   = "operation_attention"        // a person must say what became of its write
	maxPhotos         = 50
	automaticAttempts = 3
)

// Details are what add_store wants to know of a store. Those of a person are
// before those that WeChat shows, and those of one store before those of all.
type Details struct {
	MapPoiID              string   `json:"map_poi_id,omitempty"`
	CredentialNumber      string   `json:"credential_number,omitempty"`
	CompanyName           string   `json:"company_name,omitempty"`
	QualificationMediaIDs []string `json:"qualification_media_ids,omitempty"`
	CardID                string   `json:"card_id,omitempty"`
	Photos                []string `json:"photos,omitempty"`
	ContactPhone          string   `json:"contact_phone,omitempty"`
	BusinessHours         string   `json:"business_hours,omitempty"` // "10:00-21:00"
}

// or is d, with what it lacks from other.
func (d Details) or(other Details) Details {
	d.MapPoiID = cmp.Or(d.MapPoiID, other.MapPoiID)
	d.CredentialNumber = cmp.Or(d.CredentialNumber, other.CredentialNumber)
	d.CompanyName = cmp.Or(d.CompanyName, other.CompanyName)
	d.CardID = cmp.Or(d.CardID, other.CardID)
	d.ContactPhone = cmp.Or(d.ContactPhone, other.ContactPhone)
	d.BusinessHours = cmp.Or(d.BusinessHours, other.BusinessHours)
	if d.QualificationMediaIDs == nil {
		d.QualificationMediaIDs = other.QualificationMediaIDs
	}
	if d.Photos == nil {
		d.Photos = other.Photos
	}
	return d
}

// Where an item stands in WeChat's newest list.
const (
	isListed = "listed"
	isGone   = "gone" // it was listed before
)

// Shown is what WeChat's newest list shows of an item.
type Shown struct {
	List      string `json:"list,omitempty"` // isListed, isGone; "": it never was there
	Upgrade   int    `json:"upgrade"`        // wechat.UpgradePending … UpgradeNotAllowed
	Comment   string `json:"comment,omitempty"`
	Available string `json:"available,omitempty"` // our status of the legacy store
	Details
}

var (
	phonePattern = regexp.MustCompile(`^[0-9][0-9-]{4,31}$`)
	photoPattern = regexp.MustCompile(`^https?://mmbiz\.qpic\.cn/[!-~]+$`)
)

// shown reads what add_store can use of a legacy store as WeChat lists it.
func shown(f ledger.LegacyFields, status string) Shown {
	s := Shown{List: isListed, Available: status}
	if f.Upgrade != nil {
		s.Upgrade, s.Comment, s.MapPoiID = f.Upgrade.Status, f.Upgrade.Comment, f.Upgrade.MapPoiID
	}
	if phonePattern.MatchString(f.Phone) {
		s.ContactPhone = f.Phone
	}
	if open, closed, ok := ledger.OneInterval(f.BusinessHoursText); ok {
		s.BusinessHours = ledger.Interval(open, closed)
	}
	for _, u := range f.Photos {
		if photoPattern.MatchString(u) && len(s.Photos) < maxPhotos {
			s.Photos = append(s.Photos, u)
		}
	}
	return s
}

// An Item is one legacy store of a migration, as far as its moves depend on it.
type Item struct {
	Status    ItemStatus
	BlockedBy []string // with Blocked
	Action    Action
	Given     Details
	Shown     Shown
	Attempt   int  // how many writes were begun
	Deletes   bool // the newest of them deletes
	Ours      bool // the newest of them is known as an operation
}

// A Policy is what holds for all items of a migration.
type Policy struct {
	Defaults         Details
	DeleteNotAllowed bool // consent to delete every store that WeChat lets not move
}

// underWay reports whether a write of the item's may still have an effect that
// is not known: nothing else may be begun.
func (i Item) underWay() bool {
	return i.Status == Submitting || i.Status == Deleting || i.Status == Blocked && slices.Contains(i.BlockedBy, NeedsResolution)
}

// Details are what add_store would be sent.
func (p Policy) Details(i Item) Details { return i.Given.or(p.Defaults).or(i.Shown.Details) }

// deletes reports whether what is to be done with a pending item is to delete
// it. That needs a person's word.
func (p Policy) deletes(i Item) bool {
	return i.Action == Delete || i.Shown.Upgrade == wechat.UpgradeNotAllowed && i.Action == "" && p.DeleteNotAllowed
}

// Plan says what is to become of an item that nothing was begun with, or that
// waits for another beginning.
func (p Policy) Plan(i Item) Item {
	i.BlockedBy = nil
	switch {
	case i.Shown.List == isGone:
		i.Status = Deleted
	case i.Shown.List == isListed && i.Shown.Upgrade == wechat.UpgradeDone:
		i.Status = Migrated
	case i.Action == Skip:
		i.Status = Skipped
	case i.Shown.List == "":
		i.BlockedBy = []string{NeedsListing}
	case i.Shown.Upgrade == wechat.UpgradeRunning:
		i.Status, i.Ours = InReview, false // somebody else's submission
	case p.deletes(i):
		i.Status = Pending
	case i.Shown.Upgrade == wechat.UpgradeNotAllowed:
		i.BlockedBy = []string{NeedsConsent}
	default:
		i.BlockedBy = p.missing(i)
		i.Status = Pending
	}
	if i.BlockedBy != nil {
		i.Status = Blocked
	}
	return i
}

// missing is what add_store would need and nobody has said; nil: nothing.
func (p Policy) missing(i Item) (reasons []string) {
	d := p.Details(i)
	for _, need := range []struct {
		missing bool
		reason  string
	}{
		{i.Shown.Available != "approved", NeedsApproval}, {d.MapPoiID == "", NeedsMapPoi}, {len(d.Photos) == 0, NeedsPhotos},
		{d.ContactPhone == "", NeedsPhone}, {d.BusinessHours == "", NeedsHours}, {d.CredentialNumber == "", NeedsCredential},
	} {
		if need.missing {
			reasons = append(reasons, need.reason)
		}
	}
	return reasons
}

// See moves an item on by a complete list of WeChat's. now is nil where the
// list doesn't have it.
func (p Policy) See(i Item, now *Shown) Item {
	switch {
	case now != nil:
		i.Shown = *now
	case i.Shown.List != "":
		i.Shown.List = isGone
	}
	there := i.Shown.List == isListed
	switch i.Status {
	case Migrated, Deleted, Submitting, Deleting:
		// Final, or its write's own outcome says more.
	case InReview, Failed:
		switch {
		case !there:
			i.Status = Deleted
		case i.Shown.Upgrade == wechat.UpgradeDone:
			i.Status = Migrated
		case i.Status == Failed && i.Shown.Upgrade == wechat.UpgradeRunning:
			i.Status, i.Ours = InReview, false
		case i.Shown.Upgrade == wechat.UpgradeFailed && !i.Ours:
			i.Status = Failed // of a submission of ours its audit tells, and never too early
		}
	default:
		if !i.underWay() {
			return p.Plan(i)
		}
	}
	return i
}

// An Outcome is what is known of an item's newest write, and of its audit.
type Outcome struct {
	Operation string // state of the operation; "": it is not known which it is
	Retryable bool   // with failed
	Audit     string // status of the audit; "": there is none yet
	Reason    string // why it was rejected
}

// Settle moves an item on by what became of its newest write.
func (p Policy) Settle(i Item, o Outcome) Item {
	if i.underWay() {
		i.BlockedBy = nil
		switch {
		case o.Operation == "succeeded" && i.Deletes:
			i.Status = Deleted
		case o.Operation == "succeeded":
			i.Status = InReview
		case o.Operation == "failed" && o.Retryable && i.Attempt < automaticAttempts:
			return p.Plan(i)
		case o.Operation == "failed":
			i.Status = Failed
		case o.Operation == "needs_attention":
			i.Status, i.BlockedBy = Blocked, []string{NeedsResolution}
		case i.Deletes:
			i.Status = Deleting
		default:
			i.Status = Submitting
		}
	}
	if i.Status == InReview && i.Ours {
		switch ledger.AuditStatus(o.Audit) {
		case ledger.Approved:
			i.Status = Migrated
		case ledger.Rejected:
			// What the newest list shows is older.
			i.Status, i.Shown.Upgrade, i.Shown.Comment = Failed, wechat.UpgradeFailed, o.Reason
		}
	}
	return i
}

// Claim begins the item's next write.
func (p Policy) Claim(i Item) Item {
	i.Status, i.Deletes = Submitting, p.deletes(i)
	if i.Deletes {
		i.Status = Deleting
	}
	i.Attempt++
	i.Ours = false
	return i
}

// Unclaim puts an item back of which certainly nothing was sent.
func (p Policy) Unclaim(i Item) Item { return p.Plan(i) }

// ErrItem is returned for a change of an item that is at WeChat, or done.
var ErrItem = errors.New("the item can't be changed now")

// Change is what a person says of an item: details that were missing, another
// action, or that it be tried again. Errors: ErrItem.
func (p Policy) Change(i Item, action *Action, d Details) (Item, error) {
	switch i.Status {
	case Submitting, Deleting, InReview, Migrated, Deleted:
		return i, ErrItem
	}
	if i.underWay() {
		return i, ErrItem
	}
	if i.Given = d.or(i.Given); action != nil {
		i.Action = *action
	}
	return p.Plan(i), nil
}
