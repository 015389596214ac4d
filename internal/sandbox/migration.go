package sandbox

import (
	"net/http"
	"slices"
	"strconv"
)

// The migration from Store Management to the store mini program (wechat/000 §4.13): add_store with the
// poi_id of a legacy store moves it, delpoi removes one that may not move, getpoilist tells how far it is.

// Values of upgrade_status.
const (
	upgradePending    = 0
	upgradeFailed     = 1
	upgradeRunning    = 2
	upgradeDone       = 3
	upgradeNotAllowed = 4
)

// upgradeStatus: a store that failed its audit cannot move.
func (l *legacyStore) upgradeStatus() int {
	if l.Upgrade == upgradePending && l.Available == legacyRejected {
		return upgradeNotAllowed
	}
	return l.Upgrade
}

// upgraded: "Only when the upgrade_status is 3 for all the stores in the list".
func (s *Server) upgraded(acc *account) bool {
	return !acc.NeedsUpgrade && !slices.ContainsFunc(s.legacyOf(acc.AppID), func(l *legacyStore) bool { return l.upgradeStatus() != upgradeDone })
}

// migratable is the legacy store that a poi_id names. An account that was told to need the upgrade and
// has none of its stores here may name any.
func (c *call) migratable(id string) (*legacyStore, error) {
	if c.acc.NeedsUpgrade && c.st.legacy.get(id) == nil {
		return &legacyStore{POIID: id, AppID: c.acc.AppID, Available: legacyApproved}, nil
	}
	return c.legacy(id)
}

// migrates is poi_id of add_store, where it says that this is a migration.
func (c *call) migrates() (string, error) {
	id, err := c.fields.optional("poi_id")
	switch {
	case err != nil:
		return "", err
	case id == "" && !c.upgraded(c.acc):
		return "", refuse(85054)
	case id == "":
		return "", nil
	}
	l, err := c.migratable(id)
	if err != nil {
		return "", err
	}
	switch l.upgradeStatus() {
	case upgradeRunning:
		return "", refuse(85038)
	case upgradeDone:
		return "", refuse(85040)
	case upgradeNotAllowed:
		return "", refuse(85039) // "No information can be obtained under this store status"
	}
	if l.Available != legacyApproved {
		return "", refuse(65106)
	}
	switch st := c.st.stores.get(id); {
	case st == nil || st.Status == storeFailed:
		return id, nil
	case st.Status == storeInAudit:
		return "", refuse(85038)
	default:
		return "", refuse(85040)
	}
}

func (s *Server) migrationBegins(id string) {
	if l := s.st.legacy.get(id); l != nil {
		l.Upgrade, l.Comment = upgradeRunning, ""
		s.st.legacy.put(id, l)
	}
}

func (s *Server) migrationDecided(a *audit) {
	l := s.st.legacy.get(a.Subject)
	if l == nil {
		return
	}
	l.Upgrade, l.Comment = upgradeDone, ""
	if a.Status != auditApproved {
		l.Upgrade, l.Comment = upgradeFailed, a.Reason
	}
	s.st.legacy.put(l.POIID, l)
}

// seedLegacy adds a legacy store that was there before; what is empty gets a sound value.
func (s *Server) seedLegacy(acc *account, l legacyStore) *legacyStore {
	l.Seq, l.AppID = s.st.next("legacy_store", 1), acc.AppID
	n := strconv.FormatInt(l.Seq, 10)
	def := func(v *string, to string) {
		if *v == "" {
			*v = to
		}
	}
	def(&l.POIID, strconv.FormatInt(s.newID("legacy_poi", 460_000_000), 10))
	def(&l.SID, "S"+n)
	def(&l.BusinessName, "McDonald's")
	def(&l.BranchName, "Yiyuan Road Outlet "+n)
	def(&l.Province, "Guangdong")
	def(&l.City, "Guangzhou")
	def(&l.District, "Haizhu District")
	def(&l.Address, "No. "+n+", Yiyuan Road")
	def(&l.Telephone, "020-12345678")
	def(&l.OpenTime, "8:00-20:00")
	def(&l.Recommend, "McCrispy Chicken Burger Combo Meal, Chicken McNuggets, Family Barrels")
	def(&l.Special, "Free wifi, delivery service")
	if l.Categories == nil {
		l.Categories = []string{"Food,Snack and Fast Food"}
	}
	if l.Photos == nil {
		l.Photos = []string{samplePhoto}
	}
	if l.Available == 0 {
		l.Available = legacyApproved
	}
	l.AvgPrice, l.OffsetType, l.Longitude, l.Latitude = 35, 1, 115.32375, 25.097486
	s.st.legacy.put(l.POIID, &l)
	return &l
}

// seedMigration gives an account a dozen legacy stores in every state of the migration. The one that is
// under way waits for the control API; one has no place on the map yet, and one may not move.
func (s *Server) seedMigration(acc *account) {
	states := []int{
		upgradePending, upgradePending, upgradePending, upgradePending, upgradePending, upgradePending,
		upgradeFailed, upgradeFailed, upgradeRunning, upgradeDone, upgradeNotAllowed, upgradePending,
	}
	for i, state := range states {
		p := place(districtLeaves["440105"], "Mendian Legacy", i)
		s.st.mapPOIs.put(p.ID, &p)
		l := legacyStore{Upgrade: state, MapPOIID: p.ID, legacyBase: legacyBase{Address: p.Address}}
		switch {
		case state == upgradeFailed:
			l.Comment = "the photo does not show the store front"
		case state == upgradeNotAllowed || i == len(states)-1:
			l.MapPOIID = ""
		}
		s.seedMigrated(acc, s.seedLegacy(acc, l))
	}
}

// seedMigrated adds the store of the store mini program that a migration under way or done has made.
func (s *Server) seedMigrated(acc *account, l *legacyStore) {
	if l.Upgrade != upgradeRunning && l.Upgrade != upgradeDone {
		return
	}
	st := s.seedStore(acc, store{POIID: l.POIID, MapPOIID: l.MapPOIID, Phone: l.Telephone, Pictures: l.Photos})
	if l.Upgrade == upgradeRunning {
		st.Status = storeInAudit
		s.st.stores.put(st.POIID, st)
		s.submit(&audit{Kind: auditStoreCreate, ID: s.newAuditID(), AppID: acc.AppID, Subject: l.POIID, Upgrade: true}, 0, phoneStays)
	}
}

// controlSeedLegacy adds legacy stores that were there before the gateway came.
func (s *Server) controlSeedLegacy(r *http.Request) (any, error) {
	var in struct {
		Count  int `json:"count"`
		Stores []struct {
			POIID     string `json:"poi_id"`
			SID       string `json:"sid"`
			Business  string `json:"business_name"`
			Branch    string `json:"branch_name"`
			Telephone string `json:"telephone"`
			Available int    `json:"available_state"`
			Upgrade   int    `json:"upgrade_status"`
			Comment   string `json:"upgrade_comment"`
			MapID     string `json:"mapid"`
		} `json:"stores"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	return s.changeAccount(r, func(a *account) (any, error) {
		for _, v := range in.Stores {
			switch {
			case s.st.legacy.get(v.POIID) != nil:
				return nil, problem(http.StatusConflict, "poi_id %s exists", v.POIID)
			case v.Available < 0 || v.Available > legacyRejected || v.Upgrade < upgradePending || v.Upgrade > upgradeNotAllowed:
				return nil, bad("available_state is 1 to 4, upgrade_status 0 to 4")
			}
		}
		ids := []string{}
		for _, v := range in.Stores {
			l := s.seedLegacy(a, legacyStore{
				POIID: v.POIID, Available: v.Available, Upgrade: v.Upgrade, Comment: v.Comment, MapPOIID: v.MapID,
				legacyBase: legacyBase{BusinessName: v.Business, BranchName: v.Branch}, legacyService: legacyService{SID: v.SID, Telephone: v.Telephone},
			})
			s.seedMigrated(a, l)
			ids = append(ids, l.POIID)
		}
		for range in.Count {
			ids = append(ids, s.seedLegacy(a, legacyStore{MapPOIID: s.seedPlace("").ID}).POIID)
		}
		return map[string]any{"poi_ids": ids}, nil
	})
}
