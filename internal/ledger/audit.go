package ledger

// An AuditStatus is where one of WeChat's audits stands. The same seven kinds
// share it (design api.md §5.9).
type AuditStatus string

// The statuses.
const (
	Submitting     AuditStatus = "submitting"
	AwaitingAdmin  AuditStatus = "awaiting_admin_confirmation"
	UnknownOutcome AuditStatus = "outcome_unknown"
	InReview       AuditStatus = "in_review"
	SubmitFailed   AuditStatus = "submit_failed"
	Expired        AuditStatus = "expired"
	Approved       AuditStatus = "approved"
	Rejected       AuditStatus = "rejected"
	AdminRejected  AuditStatus = "rejected_by_admin"
	Withdrawn      AuditStatus = "withdrawn"
)

// rank orders the statuses: an audit only ever moves to a higher one, so news
// may come late, twice and in any order. expired and submit_failed lie below
// the final ones, because any later word from WeChat is truer.
func (s AuditStatus) rank() int32 {
	switch s {
	case Submitting:
		return 0
	case UnknownOutcome, AwaitingAdmin:
		return 10
	case InReview:
		return 20
	case SubmitFailed, Expired:
		return 90
	case Approved, Rejected, AdminRejected, Withdrawn:
		return 100
	}
	return -1 // no status of ours: never written
}

// Final reports whether nothing can follow.
func (s AuditStatus) Final() bool { return s.rank() == 100 }

// Advance is the status after news: the higher one.
func (s AuditStatus) Advance(news AuditStatus) AuditStatus {
	if news.rank() > s.rank() {
		return news
	}
	return s
}

// EventStatus reads the number in an audit event of add_store, modify_store
// and apply_merchant: 1 approved, 3 failed, 4 rejected by the administrator.
// create_map_poi_audit_info means the opposite by its numbers and is not read
// here (platform.md §11.2).
func EventStatus(event, number string) (AuditStatus, bool) {
	switch {
	case number == "1":
		return Approved, true
	case number == "3":
		return Rejected, true
	case number == "4" && event == "apply_merchant_audit_info":
		return AdminRejected, true
	}
	return "", false
}
