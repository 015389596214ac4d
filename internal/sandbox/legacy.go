package sandbox

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Stores of Store Management, the plug-in that the store mini program replaces (wechat/001).
func legacyEndpoints() []endpoint {
	ep := func(method, path string, serve func(*call) (any, error)) endpoint {
		return endpoint{
			method: method, path: "/cgi-bin/poi/" + path, token: tokenAuthorizer,
			sets: storeSets, kind: officialAccount, serve: serve,
		}
	}
	return []endpoint{
		ep(http.MethodPost, "addpoi", addPOI),
		ep(http.MethodPost, "getpoi", getPOI),
		ep(http.MethodPost, "getpoilist", getPOIList),
		ep(http.MethodPost, "updatepoi", updatePOI),
		ep(http.MethodPost, "delpoi", delPOI),
		ep(http.MethodGet, "getwxcategory", getWXCategory),
	}
}

// legacyUpdateDelay is "within 5 business days" (wechat/001 §3.4).
const legacyUpdateDelay = 5 * 24 * time.Hour

// legacyStore is a store of Store Management.
type legacyStore struct {
	Seq   int64
	POIID string
	AppID string
	legacyBase
	legacyService
	Available int
	Updated   *legacyService // under audit: shown, but not final (wechat/001 §1)
	Told      bool           // its poi_id has left the simulator
	Deleted   bool           // kept, since WeChat knows that it was there: 65116

	// The migration to the store mini program (wechat/000 §4.13).
	Upgrade  int
	Comment  string
	MapPOIID string
}

func (l *legacyStore) seq() int64 { return l.Seq }

// legacyBase is what never changes, legacyService what updatepoi may change.
type legacyBase struct {
	BusinessName, BranchName          string
	Province, City, District, Address string
	Categories                        []string
	OffsetType                        int64
	Longitude, Latitude               float64
}

type legacyService struct {
	SID          string   `json:"sid"`
	Telephone    string   `json:"telephone"`
	Photos       []string `json:"photos"`
	Recommend    string   `json:"recommend"`
	Special      string   `json:"special"`
	Introduction string   `json:"introduction"`
	OpenTime     string   `json:"open_time"`
	AvgPrice     int64    `json:"avg_price"`
}

// Values of available_state (wechat/001 §3.4).
const (
	legacyError    = 1
	legacyInAudit  = 2
	legacyApproved = 3
	legacyRejected = 4
)

// shown is what the reads answer: during an audit the fields that were sent.
func (l *legacyStore) shown() legacyService {
	if l.Updated != nil {
		return *l.Updated
	}
	return l.legacyService
}

func (l *legacyStore) updating() int {
	if l.Updated != nil {
		return 1
	}
	return 0
}

func photoList(urls []string) []photo {
	out := make([]photo, len(urls))
	for i, u := range urls {
		out[i].URL = u
	}
	return out
}

// legacy is the account's legacy store with that id.
func (c *call) legacy(id string) (*legacyStore, error) {
	l := c.st.legacy.get(id)
	switch {
	case id == "":
		return nil, refuse(40097)
	case l == nil || l.AppID != c.acc.AppID:
		return nil, refuse(65115)
	case l.Deleted:
		return nil, refuse(65116)
	}
	return l, nil
}

// legacyOf is an account's legacy stores, oldest first.
func (s *Server) legacyOf(appid string) []*legacyStore {
	return s.st.legacy.sorted(func(l *legacyStore) bool { return l.AppID == appid && !l.Deleted }, bySeq)
}

// tellLegacy writes a poi_id to the truth log when it leaves the simulator for the first time.
func (s *Server) tellLegacy(l *legacyStore, via string) {
	if !l.Told {
		l.Told = true
		s.st.legacy.put(l.POIID, l)
		s.told("legacy_poi_id", l.POIID, l.AppID, l.SID, via)
	}
}

// addPOI is wechat/001 §3.2. The poi_id is assigned at once and stays; the store is audited.
func addPOI(c *call) (any, error) {
	base, err := c.businessInfo()
	if err != nil {
		return nil, err
	}
	l := &legacyStore{AppID: c.acc.AppID, Available: legacyInAudit}
	if l.legacyBase, err = readLegacyBase(base); err != nil {
		return nil, err
	}
	if l.legacyService, err = readLegacyService(base, legacyService{}); err != nil {
		return nil, err
	}
	if l.Telephone == "" {
		return nil, refuse(65111)
	}
	id := c.newID("legacy_poi", 460_000_000)
	l.Seq, l.POIID = c.st.next("legacy_store", 1), strconv.FormatInt(id, 10)
	c.st.legacy.put(l.POIID, l)
	c.submit(&audit{Kind: auditLegacyCreate, ID: id, AppID: c.acc.AppID, Subject: l.POIID}, c.auditDelay(), l.Telephone)
	c.tellLegacy(l, "cgi-bin/poi/addpoi")
	c.executed("addpoi", c.acc.AppID, l.POIID, l.SID)
	return struct {
		okReply
		POIID int64 `json:"poi_id"`
	}{ok, id}, nil
}

// legacyCreateDecided is the event of wechat/001 §3.3.
func (s *Server) legacyCreateDecided(acc *account, a *audit) {
	l := s.st.legacy.get(a.Subject)
	if l.Deleted {
		return
	}
	result, msg := "succ", "ok"
	l.Available = legacyApproved
	if a.Status != auditApproved {
		result, msg, l.Available = "fail", a.Reason, legacyRejected
	}
	s.st.legacy.put(l.POIID, l)
	s.event(acc, "poi_check_notify", element{"UniqId", l.SID, true}, element{"PoiId", l.POIID, true},
		element{"Result", result, true}, element{"msg", msg, true})
}

// updatePOI is wechat/001 §3.6. What it changes is audited; no event tells how that ended.
func updatePOI(c *call) (any, error) {
	base, err := c.businessInfo()
	if err != nil {
		return nil, err
	}
	id, _ := base.text("poi_id")
	l, err := c.legacy(id)
	if err != nil {
		return nil, err
	}
	for name := range base {
		if !legacyServiceFields[name] && name != "poi_id" {
			return nil, refuse(40097) // "cannot be modified"
		}
	}
	updated, err := readLegacyService(base, l.legacyService)
	switch {
	case err != nil:
		return nil, err
	case l.Available != legacyApproved:
		return nil, refuse(65106)
	case l.Updated != nil:
		return nil, refuse(65107)
	case len(base) == 1:
		return ok, nil // nothing but poi_id
	}
	l.Updated = &updated
	c.st.legacy.put(l.POIID, l)
	phone, _ := base.text("telephone")
	a := &audit{Kind: auditLegacyUpdate, ID: c.newAuditID(), AppID: c.acc.AppID, Subject: l.POIID, Service: &updated}
	c.submit(a, legacyUpdateDelay, phone)
	c.executed("updatepoi", c.acc.AppID, l.POIID, updated.SID)
	return ok, nil
}

// legacyUpdateDecided: what was sent is adopted or not, silently.
func (s *Server) legacyUpdateDecided(a *audit) {
	l := s.st.legacy.get(a.Subject)
	if a.Status == auditApproved {
		l.legacyService = *a.Service
	}
	l.Updated = nil
	s.st.legacy.put(l.POIID, l)
}

// delPOI is wechat/001 §3.7.
func delPOI(c *call) (any, error) {
	id, _ := c.fields.text("poi_id")
	l, err := c.legacy(id)
	switch {
	case err != nil:
		return nil, err
	case l.Upgrade == upgradeRunning:
		return nil, refuse(65117)
	}
	l.Deleted = true
	c.st.legacy.put(l.POIID, l)
	c.executed("delpoi", c.acc.AppID, l.POIID, l.SID)
	return ok, nil
}

// getPOI is wechat/001 §3.4; its members, and that poi_id and district are not among them, are the example's.
func getPOI(c *call) (any, error) {
	id, _ := c.fields.text("poi_id")
	l, err := c.legacy(id)
	if err != nil {
		return nil, err
	}
	type info struct {
		SID            string   `json:"sid"`
		BusinessName   string   `json:"business_name"`
		BranchName     string   `json:"branch_name"`
		Province       string   `json:"province"`
		City           string   `json:"city"`
		Address        string   `json:"address"`
		Telephone      string   `json:"telephone"`
		Categories     []string `json:"categories"`
		OffsetType     int64    `json:"offset_type"`
		Longitude      float64  `json:"longitude"`
		Latitude       float64  `json:"latitude"`
		PhotoList      []photo  `json:"photo_list"`
		Recommend      string   `json:"recommend"`
		Special        string   `json:"special"`
		Introduction   string   `json:"introduction"`
		OpenTime       string   `json:"open_time"`
		AvgPrice       int64    `json:"avg_price,omitempty"`
		AvailableState int      `json:"available_state"`
		UpdateStatus   int      `json:"update_status"`
	}
	type business struct {
		Info info `json:"base_info"`
	}
	v := l.shown()
	b := business{info{
		SID: v.SID, BusinessName: l.BusinessName, BranchName: l.BranchName, Province: l.Province, City: l.City,
		Address: l.Address, Telephone: v.Telephone, Categories: l.Categories, OffsetType: l.OffsetType,
		Longitude: l.Longitude, Latitude: l.Latitude, PhotoList: photoList(v.Photos), Recommend: v.Recommend,
		Special: v.Special, Introduction: v.Introduction, OpenTime: v.OpenTime, AvgPrice: v.AvgPrice,
		AvailableState: l.Available, UpdateStatus: l.updating(),
	}}
	if c.st.Settings.LegacyBlankKeys {
		return struct {
			okReply
			Business business `json:"business "` //nolint:staticcheck // the example's key
		}{ok, b}, nil
	}
	return struct {
		okReply
		Business business `json:"business"`
	}{ok, b}, nil
}

// getPOIList is wechat/001 §3.5, with the fields of the migration (wechat/000 §4.13) once the store
// mini program is approved. total_count is a string.
func getPOIList(c *call) (any, error) {
	begin, ok1 := c.fields.number("begin")
	limit, ok2 := c.fields.number("limit")
	if !ok1 || !ok2 || begin < 0 || limit < 0 || limit > 50 {
		return nil, refuse(40097)
	}
	if limit == 0 {
		limit = 20
	}
	type info struct {
		SID            string   `json:"sid"`
		BusinessName   string   `json:"business_name"`
		BranchName     string   `json:"branch_name"`
		Address        string   `json:"address"`
		Telephone      string   `json:"telephone"`
		Categories     []string `json:"categories"`
		City           string   `json:"city"`
		Province       string   `json:"province"`
		OffsetType     int64    `json:"offset_type"`
		Longitude      float64  `json:"longitude"`
		Latitude       float64  `json:"latitude"`
		PhotoList      []photo  `json:"photo_list"`
		Introduction   string   `json:"introduction"`
		Recommend      string   `json:"recommend"`
		Special        string   `json:"special"`
		OpenTime       string   `json:"open_time"`
		AvgPrice       int64    `json:"avg_price,omitempty"`
		POIID          string   `json:"poi_id"`
		AvailableState int      `json:"available_state"`
		District       string   `json:"district"`
		UpdateStatus   int      `json:"update_status"`
		UpgradeStatus  *int     `json:"upgrade_status,omitempty"`
		UpgradeComment *string  `json:"upgrade_comment,omitempty"`
		MapID          *string  `json:"mapid,omitempty"`
	}
	type entry struct {
		Info info `json:"base_info"`
	}
	all := c.legacyOf(c.acc.AppID)
	first := min(begin, int64(len(all)))
	list := []entry{}
	for _, l := range all[first:min(first+limit, int64(len(all)))] {
		v := l.shown()
		i := info{
			SID: v.SID, BusinessName: l.BusinessName, BranchName: l.BranchName, Address: l.Address, Telephone: v.Telephone,
			Categories: l.Categories, City: l.City, Province: l.Province, OffsetType: l.OffsetType, Longitude: l.Longitude,
			Latitude: l.Latitude, PhotoList: photoList(v.Photos), Introduction: v.Introduction, Recommend: v.Recommend,
			Special: v.Special, OpenTime: v.OpenTime, AvgPrice: v.AvgPrice, POIID: l.POIID, AvailableState: l.Available,
			District: l.District, UpdateStatus: l.updating(),
		}
		if c.acc.Program.State == programApproved {
			status := l.upgradeStatus()
			i.UpgradeStatus, i.UpgradeComment, i.MapID = &status, &l.Comment, &l.MapPOIID
		}
		c.tellLegacy(l, "cgi-bin/poi/getpoilist")
		list = append(list, entry{i})
	}
	return struct {
		okReply
		List  []entry `json:"business_list"`
		Total string  `json:"total_count"`
	}{ok, list, strconv.Itoa(len(all))}, nil
}

// legacyCategories is wechat/001 §4, with those that its other examples name.
var legacyCategories = []string{
	"Food,Jiangzhe Cuisine,Shanghai Cuisine", "Food,Jiangzhe Cuisine,Huaiyang Cuisine", "Food,Jiangzhe Cuisine,Zhejiang Cuisine",
	"Food,Jiangzhe Cuisine,Nanjing Cuisine ", "Food,Jiangzhe Cuisine,Suzhou Cuisine", "Food,Sichuan Cuisine,Hotpot",
	"Food,Snack and Fast Food", "Food,Tea Restaurant", "Shopping,Convenience Store", "Shopping,Home Appliances", "Health,Pharmacy",
}

// getWXCategory is wechat/001 §4: a reply without errcode.
func getWXCategory(*call) (any, error) {
	return struct {
		List []string `json:"category_list"`
	}{legacyCategories}, nil
}

// categoryPath is a category without the blanks that examples have behind commas and at the end.
func categoryPath(s string) string {
	parts := strings.Split(s, ",")
	for i, p := range parts {
		parts[i] = strings.TrimSpace(p)
	}
	return strings.Join(parts, ",")
}
