package sandbox

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Stores of a store mini program (wechat/000 §4.8 to §4.12, 002, 003).
func storeEndpoints() []endpoint {
	post := func(path string, program bool, serve func(*call) (any, error)) endpoint {
		return endpoint{
			method: http.MethodPost, path: "/wxa/" + path, token: tokenAuthorizer,
			sets: storeSets, kind: officialAccount, program: program, serve: serve,
		}
	}
	return []endpoint{
		post("add_store", true, addStore),
		post("update_store", true, updateStore),
		post("get_store_info", false, getStoreInfo), // 85053 is listed for the writes only
		post("get_store_list", false, getStoreList),
		post("del_store", true, delStore),
	}
}

var (
	hourRE  = regexp.MustCompile(`^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$`)
	phoneRE = regexp.MustCompile(`^[0-9][0-9-]{4,31}$`) // the samples have 6 and 10 digits
)

// pictures reads pic_list: a string that holds JSON, {"list":[…]} of URLs that WeChat hosts.
func (f fields) pictures() ([]string, error) {
	text, isText := f.text("pic_list")
	var list struct {
		List []string `json:"list"`
	}
	switch {
	case !isText || json.Unmarshal([]byte(text), &list) != nil || list.List == nil:
		return nil, refuse(40097)
	case hasUnicodeEscape([]byte(text)):
		return nil, refuse(47002)
	case len(list.List) == 0:
		return nil, refuse(65114)
	}
	for _, u := range list.List {
		if !hostedByWeChat(u) {
			return nil, refuse(65105)
		}
	}
	return list.List, nil
}

func hostedByWeChat(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Path != "" &&
		(u.Host == "mmbiz.qpic.cn" || u.Host == "mmbiz.qlogo.cn")
}

// shared is what add_store and update_store both require.
type shared struct {
	pictures    []string
	phone, hour string
}

func (f fields) shared() (shared, error) {
	var v shared
	var err error
	if v.pictures, err = f.pictures(); err != nil {
		return v, err
	}
	v.phone, _ = f.text("contract_phone")
	v.hour, _ = f.text("hour")
	if !phoneRE.MatchString(v.phone) || !hourRE.MatchString(v.hour) {
		return v, refuse(40097)
	}
	return v, nil
}

// optional is a member that may be absent or a string, but nothing else.
func (f fields) optional(name string) (string, error) {
	v, isText := f.text(name)
	if f.has(name) && !isText {
		return "", refuse(40097)
	}
	return v, nil
}

// addStore is wechat/000 §4.8 and 002.
func addStore(c *call) (any, error) {
	f := c.fields
	mapID, _ := f.text("map_poi_id")
	place := c.st.mapPOIs.get(mapID)
	if place == nil {
		return nil, refuse(85055)
	}
	v, err := f.shared()
	if err != nil {
		return nil, err
	}
	credential, _ := f.text("credential")
	cardID, isText := f.text("card_id") // required, but may be empty
	if credential == "" || !isText || customCode(cardID) {
		return nil, refuse(40097)
	}
	company, err := f.optional("company_name")
	if err != nil {
		return nil, err
	}
	if err := c.checkQualifications(company); err != nil {
		return nil, err
	}
	legacy, err := c.migrates()
	if err != nil {
		return nil, err
	}
	if err := c.checkUnique(mapID, credential); err != nil {
		return nil, err
	}

	st := &store{
		Seq: c.st.next("store", 1), POIID: legacy, AppID: c.acc.AppID, MapPOIID: mapID, Pictures: v.pictures,
		Phone: v.phone, Hour: v.hour, Credential: credential, Company: company, CardID: cardID, Status: storeInAudit,
	}
	if legacy == "" {
		st.POIID = c.newPOIID()
	} else {
		former := c.st.stores.get(legacy) // of a migration that failed
		st.Told = former != nil && former.Told
		c.migrationBegins(legacy)
	}
	c.st.stores.put(st.POIID, st)
	a := &audit{Kind: auditStoreCreate, ID: c.newAuditID(), AppID: c.acc.AppID, Subject: st.POIID, Upgrade: legacy != ""}
	c.submit(a, c.auditDelay(), v.phone)
	id := strconv.FormatInt(a.ID, 10)
	c.told("audit_id", id, c.acc.AppID, mapID, "add_store")
	c.executed("add_store", c.acc.AppID, id, mapID)
	return auditReply{ok, auditData{AuditID: a.ID}}, nil
}

type auditData struct {
	AuditID int64 `json:"audit_id"`
}

type auditReply struct {
	okReply
	Data auditData `json:"data"`
}

// checkQualifications: documents are needed when the entity is another one.
func (c *call) checkQualifications(company string) error {
	list, err := c.mediaList("qualification_list")
	if err == nil && company != "" && len(list) == 0 {
		return refuse(40097)
	}
	return err
}

// mediaList is a member of up to five media ids joined by commas; it may be absent or empty.
func (c *call) mediaList(name string) ([]string, error) {
	list, err := c.fields.optional(name)
	if err != nil || list == "" {
		return nil, err
	}
	ids := strings.Split(list, ",")
	if len(ids) > 5 {
		return nil, refuse(40097)
	}
	for _, id := range ids {
		if c.media(strings.TrimSpace(id)) == nil {
			return nil, refuse(85056)
		}
	}
	return ids, nil
}

// checkUnique: a place carries one store, of whomever; a credential is used once by an account; and an
// account may have a limit. Failed stores do not count, so that they can be added again.
func (c *call) checkUnique(mapID, credential string) error {
	count := 0
	for _, st := range c.st.stores.rows {
		if st.Status == storeFailed {
			continue
		}
		mine := st.AppID == c.acc.AppID
		switch {
		case st.MapPOIID == mapID && !mine:
			return refuse(85039)
		case st.MapPOIID == mapID && st.Status == storeInAudit:
			return refuse(85038)
		case st.MapPOIID == mapID:
			return refuse(85040)
		}
		if mine {
			count++
		}
	}
	for _, st := range c.st.stores.rows {
		if st.AppID == c.acc.AppID && st.Credential == credential && st.Status != storeFailed {
			return refuse(85041)
		}
	}
	if c.acc.StoreLimit > 0 && count >= c.acc.StoreLimit {
		return refuse(85042)
	}
	return nil
}

// store is the account's own store that the body names.
func (c *call) store() (*store, error) {
	id, _ := c.fields.text("poi_id") // typed string in the documents, although it looks like a number
	if id == "" {
		return nil, refuse(40097)
	}
	st := c.st.stores.get(id)
	if st == nil || st.AppID != c.acc.AppID {
		return nil, refuse(65115)
	}
	return st, nil
}

// updateStore is wechat/000 §4.9 and 003. Hours, phone and card change at once; pictures that are not
// all among the present ones are audited first.
func updateStore(c *call) (any, error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	v, err := c.fields.shared()
	if err != nil {
		return nil, err
	}
	cardID, err := c.fields.optional("card_id") // 003 calls it required, its example leaves it out
	if err != nil {
		return nil, err
	}
	if customCode(cardID) {
		return nil, refuse(40097)
	}
	if st.Status != storeApproved {
		return nil, refuse(65118)
	}
	type data struct {
		HasAuditID int   `json:"has_audit_id"`
		AuditID    int64 `json:"audit_id"`
	}
	reply := struct {
		okReply
		Data data `json:"data"`
	}{okReply: ok}
	st.Hour, st.Phone = v.hour, v.phone
	if cardID != "" {
		st.CardID = cardID
	}
	effectID := ""
	if slices.ContainsFunc(v.pictures, func(p string) bool { return !slices.Contains(st.Pictures, p) }) {
		a := &audit{Kind: auditStoreUpdate, ID: c.newAuditID(), AppID: c.acc.AppID, Subject: st.POIID, Pictures: v.pictures}
		c.submit(a, c.auditDelay(), v.phone)
		st.Status = storeInAudit
		reply.Data = data{1, a.ID}
		effectID = strconv.FormatInt(a.ID, 10)
		c.told("audit_id", effectID, c.acc.AppID, st.POIID, "update_store")
	} else {
		st.Pictures = v.pictures
	}
	c.st.stores.put(st.POIID, st)
	c.executed("update_store", c.acc.AppID, effectID, st.POIID)
	return reply, nil
}

// delStore is wechat/000 §4.12. A store in audit cannot go: "-1 Deletion failed".
func delStore(c *call) (any, error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	if st.Status == storeInAudit {
		return nil, refuse(-1)
	}
	c.st.stores.del(st.POIID)
	c.executed("del_store", c.acc.AppID, "", st.POIID)
	return ok, nil
}

type photo struct {
	URL string `json:"photo_url"`
}

// storeInfo is base_info of get_store_info; the list has two fields more.
type storeInfo struct {
	BusinessName      string    `json:"business_name"`
	Address           string    `json:"address"`
	Telephone         string    `json:"telephone"`
	Categories        *[]string `json:"categories,omitempty"`
	City              string    `json:"city"`
	Province          string    `json:"province"`
	Longitude         float64   `json:"longitude"`
	Latitude          float64   `json:"latitude"`
	PhotoList         []photo   `json:"photo_list"`
	OpenTime          string    `json:"open_time"`
	POIID             string    `json:"poi_id"`
	Status            int       `json:"status"`
	District          string    `json:"district"`
	QualificationList *[]string `json:"qualification_list,omitempty"`
	QualificationNum  string    `json:"qualification_num"`
	QualificationName string    `json:"qualification_name"`
}

type baseInfo struct {
	Info storeInfo `json:"base_info"`
}

func (c *call) show(st *store) storeInfo {
	place := c.st.mapPOIs.get(st.MapPOIID)
	name := st.Company
	if name == "" {
		name = c.acc.Principal
	}
	photos := make([]photo, len(st.Pictures))
	for i, u := range st.Pictures {
		photos[i].URL = u
	}
	c.tell(st, trimSlash(c.endpoint.path))
	return storeInfo{
		BusinessName: place.Name, Address: place.Address, Telephone: st.Phone, City: place.City, Province: place.Province,
		Longitude: place.Longitude, Latitude: place.Latitude, PhotoList: photos, OpenTime: st.Hour, POIID: st.POIID,
		Status: st.Status, District: place.District, QualificationNum: st.Credential, QualificationName: name,
	}
}

// tell writes a store's poi_id to the truth log when it leaves the simulator for the first time.
func (s *Server) tell(st *store, via string) {
	if !st.Told {
		st.Told = true
		s.st.stores.put(st.POIID, st)
		s.told("poi_id", st.POIID, st.AppID, st.MapPOIID, via)
	}
}

// getStoreInfo is wechat/000 §4.10.
func getStoreInfo(c *call) (any, error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	return struct {
		okReply
		Business baseInfo `json:"business"`
	}{ok, baseInfo{c.show(st)}}, nil
}

// getStoreList is wechat/000 §4.11.
func getStoreList(c *call) (any, error) {
	offset, ok1 := c.fields.number("offset")
	limit, ok2 := c.fields.number("limit")
	if !ok1 || !ok2 || offset < 0 || limit < 0 || limit > 50 {
		return nil, refuse(40097)
	}
	if limit == 0 {
		limit = 20
	}
	all := c.st.stores.sorted(func(st *store) bool { return st.AppID == c.acc.AppID }, bySeq)
	if offset > 0 && offset > int64(len(all))-1 {
		return nil, refuse(40097)
	}
	list := []baseInfo{}
	for _, st := range all[offset:min(offset+limit, int64(len(all)))] {
		i := c.show(st)
		i.Categories, i.QualificationList = &[]string{}, &[]string{}
		list = append(list, baseInfo{i})
	}
	return struct {
		okReply
		List  []baseInfo `json:"business_list"`
		Total int        `json:"total_count"`
	}{ok, list, len(all)}, nil
}

func (s *Server) newPOIID() string  { return strconv.FormatInt(s.newID("poi", 472_000_000), 10) }
func (s *Server) newAuditID() int64 { return s.newID("audit_id", 414_000_000) }

// newID gives rising numbers with gaps, as WeChat's are.
func (s *Server) newID(sequence string, base int64) int64 {
	first := base
	if s.st.LastID[sequence] == 0 {
		first += s.rng.Int64N(base / 4)
	} else {
		first = s.st.LastID[sequence] + 1 + s.rng.Int64N(97)
	}
	return s.st.next(sequence, first)
}
