package sandbox

import (
	"strconv"
	"strings"
)

// The component of a fresh start. None of it is a secret: the simulator guards nothing.
const (
	DefaultComponentAppID  = "wx5ab0d1c0ffee0001"
	DefaultComponentSecret = "5a4db0c5ec7e70f5a4db0c5ec7e70f01" // #nosec G101
	DefaultMessageToken    = "sandboxmessagetoken"
	DefaultEncodingAESKey  = "sandboxSandboxsandboxSandboxsandboxSandbox1"
)

// The accounts of a fresh start; none has authorised the component yet.
const (
	// DemoOfficialAccount grants {8, 11, 13}, has an approved store program and three stores.
	DemoOfficialAccount = "wx5ab0d1c0ffee0a01"
	// DemoMiniProgram grants {30, 52} and has goods in every state.
	DemoMiniProgram = "wx5ab0d1c0ffee0a02"
	// NoStoreSetsAccount is an Official Account that grants {1, 11}: no set opens the store calls.
	NoStoreSetsAccount = "wx5ab0d1c0ffee0a03"
	// LeavingAccount grants {8, 11, 13}; it is there to be de-authorised.
	LeavingAccount = "wx5ab0d1c0ffee0a04"
	// MigratingAccount grants {8, 11, 13}, has an approved store program, and legacy stores in every
	// state of the migration (wechat/000 §4.13).
	MigratingAccount = "wx5ab0d1c0ffee0a05"
)

// samplePhoto is the picture of the documents' examples.
const samplePhoto = "http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"

func (s *Server) seedDefaults() {
	s.st.Component = component{
		AppID: DefaultComponentAppID, Secret: DefaultComponentSecret,
		MessageToken: DefaultMessageToken, EncodingAESKey: DefaultEncodingAESKey,
	}
	s.st.saveMeta()
	for _, p := range samplePlaces() {
		s.st.mapPOIs.put(p.ID, &p)
	}
	demo := s.makeAccount(DemoOfficialAccount, officialAccount, "Mendian Demo Shops", []int{8, 11, 13})
	live := s.makeAccount(DemoMiniProgram, miniProgram, "Mendian Demo Live", []int{30, 52})
	s.makeAccount(NoStoreSetsAccount, officialAccount, "Mendian No Store Sets", []int{1, 11})
	s.makeAccount(LeavingAccount, officialAccount, "Mendian Leaving", []int{8, 11, 13})

	for i, status := range []int{storeApproved, storeApproved, storeFailed} {
		p := place(districtLeaves["440106"], "Mendian Demo", i)
		s.st.mapPOIs.put(p.ID, &p)
		s.seedStore(demo, store{MapPOIID: p.ID, Status: status, Credential: "91440101DEMO000" + strconv.Itoa(i)})
	}
	s.seedDemoGoods(live)
	s.seedMigration(s.makeAccount(MigratingAccount, officialAccount, "Mendian Migrating", []int{8, 11, 13}))
}

// makeAccount makes an account with an approved store program if it is an Official Account.
func (s *Server) makeAccount(appid string, kind accountKind, nickname string, sets []int) *account {
	a := &account{
		Seq: s.st.next("account", 1), AppID: appid, Kind: kind, UserName: "gh_" + strings.TrimPrefix(appid, "wx")[4:],
		Nickname: nickname, Principal: nickname + " Co., Ltd.", Sets: sets, Program: storeProgram{State: programNone},
	}
	if kind == officialAccount {
		a.Program = storeProgram{State: programApproved, AuditID: s.newAuditID(), Nickname: nickname, Told: true}
	}
	s.st.accounts.put(appid, a)
	return a
}

// seedStore adds a store that was there before; what is empty gets a sound value.
func (s *Server) seedStore(acc *account, st store) *store {
	def := func(v *string, to string) {
		if *v == "" {
			*v = to
		}
	}
	st.Seq, st.AppID = s.st.next("store", 1), acc.AppID
	if st.POIID == "" {
		st.POIID = s.newPOIID()
	}
	if s.st.mapPOIs.get(st.MapPOIID) == nil {
		st.MapPOIID = s.seedPlace("").ID
	}
	def(&st.Phone, "02087654321")
	def(&st.Hour, "10:00-21:00")
	def(&st.Credential, "91440101"+digits(10))
	if len(st.Pictures) == 0 {
		st.Pictures = []string{samplePhoto}
	}
	if st.Status == 0 {
		st.Status = storeApproved
	}
	s.st.stores.put(st.POIID, &st)
	return &st
}

// seedPlace adds a place to the map, in the documents' district where none is given.
func (s *Server) seedPlace(districtID string) *mapPOI {
	d, found := leafDistrict(districtID)
	if !found {
		d = districtLeaves["440105"]
	}
	p := place(d, "Place "+digits(12), 0)
	s.st.mapPOIs.put(p.ID, &p)
	return &p
}
