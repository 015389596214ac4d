package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A magic ending of the phone, of the store program's nickname or of the name of goods decides what becomes
// of an audit (README.md).
const (
	phoneRejected = "0003" // rejected when its time has come
	phoneStays    = "0009" // waits for the control API
)

const mapPOIDelay = 72 * time.Hour // "3 business days", wechat/000 §4.7

func auditKey(kind auditKind, id int64) string { return fmt.Sprintf("%s/%d", kind, id) }

// submit opens an audit. Its delay is virtual time; magic may have a magic ending.
func (s *Server) submit(a *audit, delay time.Duration, magic string) {
	a.Seq, a.Status, a.Submitted = s.st.next("audit", 1), auditPending, s.now()
	if !strings.HasSuffix(magic, phoneStays) {
		due := a.Submitted.Add(delay)
		a.Due = &due
	}
	a.AutoDeny = strings.HasSuffix(magic, phoneRejected)
	s.st.audits.put(auditKey(a.Kind, a.ID), a)
}

func (s *Server) auditDelay() time.Duration {
	if d, err := time.ParseDuration(s.st.Settings.AuditDelay); err == nil {
		return d
	}
	return s.cfg.AuditDelay
}

// decideDue decides what is due unless pushes are held, and says how long nothing else will be.
func (s *Server) decideDue() time.Duration {
	wait := time.Hour
	if s.st.Hold {
		return wait
	}
	now := s.now()
	pending := s.st.audits.sorted(func(a *audit) bool { return a.Status == auditPending && a.Due != nil }, bySeq)
	for _, a := range pending {
		if now.Before(*a.Due) {
			wait = min(wait, a.Due.Sub(now))
			continue
		}
		switch {
		case a.AwaitsAdmin:
			s.expireProgram(a)
		case a.AutoDeny:
			s.decide(a, auditRejected, "the input ends in "+phoneRejected)
		default:
			s.decide(a, auditApproved, "")
		}
	}
	return wait
}

// decide closes an audit: what it was about changes, and the event is queued.
func (s *Server) decide(a *audit, decision, reason string) {
	now := s.now()
	a.Status, a.Reason, a.Decided = decision, reason, &now
	s.st.audits.put(auditKey(a.Kind, a.ID), a)
	acc := s.st.accounts.get(a.AppID)
	switch a.Kind {
	case auditStoreCreate:
		s.storeCreateDecided(acc, a)
	case auditStoreUpdate:
		s.storeUpdateDecided(acc, a)
	case auditGoods:
		s.goodsDecided(a)
	case auditMapPOI:
		s.mapPOIDecided(acc, a)
	case auditStoreProgram:
		s.programDecided(acc, a)
	case auditLegacyCreate:
		s.legacyCreateDecided(acc, a)
	case auditLegacyUpdate:
		s.legacyUpdateDecided(a)
	}
}

// event queues a merchant's event. WeChat sends nothing for an account that has left.
func (s *Server) event(acc *account, name string, extra ...element) {
	if s.st.auths.get(acc.AppID) == nil {
		return
	}
	s.queue(acc.AppID, name, eventXML(acc.UserName, name, extra...))
}

// auditStatus is the status of the apply_merchant, add_store and modify_store events (platform.md §11.2).
func auditStatus(decision string) string {
	switch decision {
	case auditApproved:
		return "1"
	case auditAdminRejected:
		return "4"
	default:
		return "3"
	}
}

// storeCreateDecided is the event of wechat/000 §4.8.
func (s *Server) storeCreateDecided(acc *account, a *audit) {
	poiid := "0" // "only valid when status=1"
	if st := s.st.stores.get(a.Subject); st != nil {
		st.Status = storeFailed
		if a.Status == auditApproved {
			st.Status, poiid = storeApproved, st.POIID
			s.tell(st, "add_store_audit_info")
		}
		s.st.stores.put(st.POIID, st)
	}
	upgrade := "0"
	if a.Upgrade {
		upgrade = "1"
		s.migrationDecided(a)
	}
	s.event(acc, "add_store_audit_info",
		element{"audit_id", strconv.FormatInt(a.ID, 10), false}, element{"status", auditStatus(a.Status), false},
		element{"reason", a.Reason, true}, element{"is_upgrade", upgrade, false}, element{"poiid", poiid, false})
}

// storeUpdateDecided is the event of wechat/000 §4.9.
func (s *Server) storeUpdateDecided(acc *account, a *audit) {
	if st := s.st.stores.get(a.Subject); st != nil {
		st.Status = storeApproved
		if a.Status == auditApproved {
			st.Pictures = slices.Clone(a.Pictures)
		}
		s.st.stores.put(st.POIID, st)
	}
	s.event(acc, "modify_store_audit_info",
		element{"audit_id", strconv.FormatInt(a.ID, 10), false}, element{"status", auditStatus(a.Status), false},
		element{"reason", a.Reason, true})
}

// mapPOIDecided is the event of wechat/000 §4.7, whose status is 0 for approved, 1 for failed.
func (s *Server) mapPOIDecided(acc *account, a *audit) {
	status, id := "1", ""
	p := a.Place
	if a.Status == auditApproved {
		status, id = "0", s.newMapPOIID()
		p.ID = id
		s.st.mapPOIs.put(id, p)
		s.told("map_poi_id", id, a.AppID, strconv.FormatInt(a.ID, 10), "create_map_poi_audit_info")
		if l := s.st.legacy.get(a.LegacyPOIID); l != nil {
			l.MapPOIID = id
			s.st.legacy.put(l.POIID, l)
		}
	}
	s.event(acc, "create_map_poi_audit_info",
		element{"audit_id", strconv.FormatInt(a.ID, 10), false}, element{"status", status, false},
		element{"map_poi_id", id, true}, element{"name", p.Name, true}, element{"address", p.Address, true},
		element{"latitude", decimal(p.Latitude), true}, element{"longitude", decimal(p.Longitude), true},
		element{"sh_remark", a.Reason, true})
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
