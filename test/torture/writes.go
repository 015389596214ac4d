package torture

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/jpeg"
	"maps"
	"slices"
	"time"

	"github.com/mendian/mendian/test/world"
)

// A Write is one request that has one effect at WeChat. No two writes of an
// arena share their subject, so that each effect in the simulator's truth log
// belongs to one of them.
type Write struct {
	Kind     string // operations.kind
	AppID    string
	Merchant string
	Method   string
	Path     string
	Body     any
	Key      string // Idempotency-Key

	Call        string // its path at WeChat
	Effect, Sub string // kind and key in the truth log; key "" is the account's only one

	done
}

// Kinds are all kinds of writes that reach WeChat.
var Kinds = []string{
	"store.create", "store.update", "store.delete", "store.set_card", "map_poi.create",
	"legacy_store.create", "legacy_store.update", "legacy_store.delete",
	"goods.create", "goods.update", "goods.audit", "goods.withdraw", "goods.delete",
	"store_program.apply", "store_program.modify", "media.upload_image", "media.upload",
}

// Repeatable are the kinds that the proof table lets us send again when
// nothing can be read that proves them: an overwrite with the same values, or a
// file whose first copy nobody knows of.
var Repeatable = []string{"store_program.modify", "media.upload_image", "media.upload"}

// perAccount is how many subjects an account is given of each kind that needs
// one. One change of the store program: WeChat allows few in a month.
const perAccount = 8

// Prepare makes n writes of each of these kinds, with the accounts and subjects
// that they need, and waits until the gateway knows those.
func (a *Arena) Prepare(n int, kinds ...string) []*Write {
	a.t.Helper()
	var out []*Write
	p := preparation{Arena: a}
	for _, kind := range kinds {
		for range n {
			out = append(out, p.next(kind))
		}
	}
	for _, fill := range p.fills {
		fill()
	}
	return out
}

// A preparation hands out the subjects of new accounts, kind by kind.
type preparation struct {
	*Arena
	left  map[string][]func(*Write) // by kind: ways to make a write of a subject that is there
	fills []func()
}

// next is a write of the kind. What needs its merchant's records is filled in
// at the end, so that accounts come to be known side by side.
func (p *preparation) next(kind string) *Write {
	w := &Write{Kind: kind, Key: p.name("torture-")}
	if p.left == nil {
		p.left = map[string][]func(*Write){}
	}
	if len(p.left[kind]) == 0 {
		p.account(kind)
	}
	fill := p.left[kind][0]
	p.left[kind] = p.left[kind][1:]
	p.fills = append(p.fills, func() { fill(w) })
	return w
}

func (p *preparation) offer(kind string, fill func(*Write)) {
	p.left[kind] = append(p.left[kind], fill)
}

const (
	picture  = "http://mmbiz.qpic.cn/mmbiz_png/tW66AWE2K6ECFPcyAcIZTG8RlcR0sAqBibOm8gao5xOoLfIic9ZJ6MADAktGPxZI7MZLcadZUT36b14NJ2cHRHA/0?wx_fmt=png"
	programs = "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P" // a media id that never expires
	cover    = "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR"
	phone    = "020-12345678"
)

// account makes and authorises one account with subjects for the kind and for
// those that need the same sort of account.
func (p *preparation) account(kind string) {
	account := map[string]any{"store_program": "approved"}
	family, _, _ := cut(kind)
	switch {
	case family == "goods":
		account["kind"] = "mini_program"
	case kind == "store_program.apply":
		account["store_program"] = "none"
	}
	m := p.newMerchant(account)
	appid := m.appid
	switch {
	case family == "goods":
		var goods []map[string]any
		for range 3 * perAccount {
			goods = append(goods, map[string]any{"name": p.name("seed"), "price_type": 1, "price": 9.5, "url": "pages/index/index", "audit_status": 0, "third_party_tag": 2})
		}
		m.list = "/v1/goods"
		p.Control("POST", "accounts/"+appid+"/goods", map[string]any{"goods": goods}, nil)
	case family == "legacy_store":
		var stores []map[string]any
		for range 2 * perAccount {
			stores = append(stores, map[string]any{"sid": p.name("L"), "available_state": 3})
		}
		m.list = "/v1/legacy-stores"
		p.Control("POST", "accounts/"+appid+"/legacy-stores", map[string]any{"stores": stores}, nil)
	case kind != "store_program.apply":
		m.list = "/v1/stores"
		p.Control("POST", "accounts/"+appid+"/stores", map[string]any{"count": 3 * perAccount}, nil)
	}
	m.authorize()
	switch {
	case family == "goods":
		for range perAccount {
			p.offer("goods.create", m.createGoods)
			p.offer("goods.update", m.updateGoods)
			p.offer("goods.audit", m.auditGoods)
			p.offer("goods.withdraw", m.withdrawGoods)
			p.offer("goods.delete", m.deleteGoods)
		}
	case family == "legacy_store":
		for range perAccount {
			p.offer("legacy_store.create", m.createLegacy)
			p.offer("legacy_store.update", m.updateLegacy)
			p.offer("legacy_store.delete", m.deleteLegacy)
		}
	case kind == "store_program.apply":
		p.offer(kind, m.apply)
	default:
		p.offer("store_program.modify", m.modify)
		for range perAccount {
			p.offer("store.create", m.createStore)
			p.offer("store.update", m.updateStore)
			p.offer("store.delete", m.deleteStore)
			p.offer("store.set_card", m.setCard)
			p.offer("map_poi.create", m.createPlace)
			p.offer("media.upload_image", m.uploadImage)
			p.offer("media.upload", m.uploadMedia)
		}
	}
}

// A merchant is an account that was authorised for an arena.
type merchant struct {
	arena  *Arena
	appid  string
	list   string // its inventory; "": it has none
	id     string
	client *world.Client
	spare  []map[string]any // records of the inventory that no write has taken
}

// ourAppIDs is how the appids of an arena's merchants begin.
const ourAppIDs = "wx7042"

// newMerchant makes an account, with what differs from an Official Account.
func (a *Arena) newMerchant(account map[string]any) *merchant {
	a.t.Helper()
	a.accounts++
	m := &merchant{arena: a, appid: fmt.Sprintf(ourAppIDs+"%012x", a.accounts)}
	all := map[string]any{"appid": m.appid, "kind": "official_account"}
	maps.Copy(all, account)
	a.Control("POST", "accounts", all, nil)
	return m
}

// authorize is its administrator's consent in WeChat's console.
func (m *merchant) authorize() { m.arena.Control("POST", "accounts/"+m.appid+"/authorize", nil, nil) }

// known waits until the gateway knows the merchant, and what it had before.
func (m *merchant) known(w *Write) {
	m.wait()
	w.AppID, w.Merchant = m.appid, m.id
}

func (m *merchant) wait() {
	if m.id == "" {
		c := m.arena.Client(m.arena.Settled, "")
		world.Eventually(m.arena.t, time.Minute, "the merchant "+m.appid, func() error {
			a := c.Do("GET", "/v1/merchants/"+m.appid, nil)
			if m.id = a.Get("id"); a.Status != 200 || a.Get("status") != "authorized" {
				return fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return nil
		})
		m.client = c.For(m.id)
		m.spare = m.inventory()
	}
}

func (m *merchant) inventory() []map[string]any {
	var page struct{ Data []map[string]any }
	if m.list == "" {
		return nil
	}
	world.Eventually(m.arena.t, time.Minute, "the inventory "+m.list, func() error {
		a := m.client.Do("GET", m.list+"?limit=100", nil)
		if a.Status != 200 || a.Get("synced_at") == "null" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		a.Into(&page)
		return nil
	})
	return page.Data
}

// take is a record of the merchant's inventory that no other write has.
func (m *merchant) take(w *Write) map[string]any {
	m.known(w)
	if len(m.spare) == 0 {
		m.arena.t.Fatalf("%s of %s is used up", m.list, m.appid)
	}
	taken := m.spare[0]
	m.spare = m.spare[1:]
	return taken
}

func (m *merchant) createStore(w *Write) {
	m.known(w)
	s := m.arena.NewStore(m.arena.serial)
	m.arena.serial++
	s["contact_phone"], s["credential_number"] = phone, m.arena.name("91440101T")
	w.Method, w.Path, w.Body = "POST", "/v1/stores", s
	w.Call, w.Effect, w.Sub = "wxa/add_store", "add_store", s["map_poi_id"].(string)
}

// updateStore gives a store new pictures, which WeChat audits.
func (m *merchant) updateStore(w *Write) {
	s := m.take(w)
	poi := s["poi_id"].(string)
	w.Method, w.Path = "PATCH", "/v1/stores/"+s["id"].(string)
	w.Body = map[string]any{"photos": []string{"http://mmbiz.qpic.cn/mmbiz_png/" + poi + "/0?wx_fmt=png"}, "contact_phone": phone}
	w.Call, w.Effect, w.Sub = "wxa/update_store", "update_store", poi
}

func (m *merchant) deleteStore(w *Write) {
	s := m.take(w)
	w.Method, w.Path = "DELETE", "/v1/stores/"+s["id"].(string)
	w.Call, w.Effect, w.Sub = "wxa/del_store", "del_store", s["poi_id"].(string)
}

func (m *merchant) setCard(w *Write) {
	s := m.take(w)
	card := m.arena.name("pcard")
	w.Method, w.Path, w.Body = "PUT", "/v1/stores/"+s["id"].(string)+"/card", map[string]string{"card_id": card}
	w.Call, w.Effect, w.Sub = "card/storewxa/set", "set_card", card
}

func (m *merchant) createPlace(w *Write) {
	m.known(w)
	name := m.arena.name("Place ")
	w.Method, w.Path, w.Body = "POST", "/v1/map-pois", map[string]any{"name": name, "location": map[string]string{"latitude": "23.0974903107", "longitude": "113.323753357"},
		"province": "Guangdong", "city": "Guangzhou", "district": "Haizhu District", "district_id": "440105", "address": "TIT", "category_path": []string{"Shopping"},
		"phones": []string{"12345678901"}, "photo_url": picture, "license_url": picture, "introduction": "test"}
	w.Call, w.Effect, w.Sub = "wxa/create_map_poi", "create_map_poi", name
}

func (m *merchant) createLegacy(w *Write) {
	m.known(w)
	sid := m.arena.name("R")
	w.Method, w.Path, w.Body = "POST", "/v1/legacy-stores", map[string]any{"client_reference": sid,
		"business_name": "McDonald's", "branch_name": "Outlet " + sid, "province": "Guangdong", "city": "Guangzhou", "district": "Haizhu District",
		"address": "No. 11, Yiyuan Road", "phone": phone, "category_path": []string{"Food", "Snack and Fast Food"}, "coordinate_system": "mars",
		"location": map[string]string{"longitude": "115.32375", "latitude": "25.097486"}, "photos": []string{"https://mmbiz.qpic.cn/a.jpg"},
		"introduction": "A restaurant.", "business_hours": map[string]string{"open": "8:00", "close": "20:00"}, "average_price": 35}
	w.Call, w.Effect, w.Sub = "cgi-bin/poi/addpoi", "addpoi", sid
}

func (m *merchant) updateLegacy(w *Write) {
	s := m.take(w)
	w.Method, w.Path, w.Body = "PATCH", "/v1/legacy-stores/"+s["id"].(string), map[string]any{"average_price": 41, "special": "Parking"}
	w.Call, w.Effect, w.Sub = "cgi-bin/poi/updatepoi", "updatepoi", s["sid"].(string)
}

func (m *merchant) deleteLegacy(w *Write) {
	s := m.take(w)
	w.Method, w.Path = "DELETE", "/v1/legacy-stores/"+s["id"].(string)
	w.Call, w.Effect, w.Sub = "cgi-bin/poi/delpoi", "delpoi", s["sid"].(string)
}

func item(name string) map[string]any {
	return map[string]any{"name": name, "cover_media_id": cover, "pricing": map[string]string{"type": "fixed", "amount": "99.50"}, "path": "pages/index/index"}
}

const goodsCall = "wxaapi/broadcast/goods/"

func (m *merchant) createGoods(w *Write) {
	m.known(w)
	name := m.arena.name("item")
	w.Method, w.Path, w.Body = "POST", "/v1/goods", item(name)
	w.Call, w.Effect, w.Sub = goodsCall+"add", "goods_add", name
}

func (m *merchant) updateGoods(w *Write) {
	g := m.take(w)
	w.Method, w.Path, w.Body = "PATCH", "/v1/goods/"+g["id"].(string), map[string]any{"name": m.arena.name("other")}
	w.Call, w.Effect, w.Sub = goodsCall+"update", "goods_update", g["goods_id"].(string)
}

func (m *merchant) auditGoods(w *Write) {
	g := m.take(w)
	w.Method, w.Path = "POST", "/v1/goods/"+g["id"].(string)+"/audits"
	w.Call, w.Effect, w.Sub = goodsCall+"audit", "goods_audit", g["goods_id"].(string)
}

// withdrawGoods takes back an audit that waits for WeChat's people. Only one
// whose id we know can be.
func (m *merchant) withdrawGoods(w *Write) {
	m.known(w)
	made := m.client.Do("POST", "/v1/goods", item(m.arena.name("wait")+"0009")).Want(202)
	w.Method, w.Path = "POST", "/v1/audits/"+made.Get("audit", "id")+"/withdrawal"
	w.Call, w.Effect, w.Sub = goodsCall+"resetaudit", "goods_resetaudit", made.Get("goods_id")
}

func (m *merchant) deleteGoods(w *Write) {
	g := m.take(w)
	w.Method, w.Path = "DELETE", "/v1/goods/"+g["id"].(string)
	w.Call, w.Effect, w.Sub = goodsCall+"delete", "goods_delete", g["goods_id"].(string)
}

func (m *merchant) apply(w *Write) {
	m.known(w)
	name := m.arena.name("shop no ")
	w.Method, w.Path = "POST", "/v1/merchants/"+m.id+"/store-program"
	w.Body = map[string]any{"primary_category_id": "476", "secondary_category_id": "477", "nickname": name,
		"introduction": "tea", "head_image_media_id": programs, "qualification_media_ids": []string{programs}}
	w.Call, w.Effect, w.Sub = "wxa/apply_merchant", "apply_merchant", name
}

func (m *merchant) modify(w *Write) {
	m.known(w)
	world.Eventually(m.arena.t, time.Minute, "the Store Mini Program of "+m.appid, func() error {
		if a := m.client.Do("GET", "/v1/merchants/"+m.id+"/store-program", nil); a.Status != 200 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	w.Method, w.Path, w.Body = "PATCH", "/v1/merchants/"+m.id+"/store-program", map[string]any{"introduction": m.arena.name("tea no ")}
	w.Call, w.Effect = "wxa/modify_merchant", "modify_merchant"
}

func (m *merchant) uploadImage(w *Write) {
	m.known(w)
	w.Path, w.Call, w.Effect = "/v1/media/images", "cgi-bin/media/uploadimg", "media_uploadimg"
	m.file(w, nil)
}

func (m *merchant) uploadMedia(w *Write) {
	m.known(w)
	w.Path, w.Call, w.Effect = "/v1/media/temporary", "cgi-bin/media/upload", "media_upload"
	m.file(w, map[string]string{"purpose": "certificate"})
}

// file is a picture like no other.
func (m *merchant) file(w *Write, texts map[string]string) {
	m.arena.serial++
	const bits, block = 20, 8 // a block of JPEG's is of one colour
	img := image.NewGray(image.Rect(0, 0, bits*block, block))
	for i := range img.Pix {
		img.Pix[i] = uint8(255 * (m.arena.serial >> (i % (bits * block) / block) & 1))
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		m.arena.t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	w.Method, w.Body, w.Sub = "POST", world.Form{File: b.Bytes(), Texts: texts}, hex.EncodeToString(sum[:])
}

// of reports whether the effect is this write's.
func (w *Write) of(e world.Effect) bool {
	return e.Kind == w.Effect && e.AppID == w.AppID && (w.Sub == "" || e.Key == w.Sub)
}

// repeatable reports whether a second effect is allowed.
func (w *Write) repeatable() bool { return slices.Contains(Repeatable, w.Kind) }

func cut(kind string) (family, verb string, found bool) {
	for i, c := range kind {
		if c == '.' {
			return kind[:i], kind[i+1:], true
		}
	}
	return kind, "", false
}
