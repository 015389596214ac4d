package sandbox

import (
	_ "embed"
	"strconv"
	"strings"
)

//go:embed districts.txt
var districtTable string

// district is an entry of get_district. The third level has no cidx, name or pinyin.
type district struct {
	ID       string   `json:"id"`
	Name     string   `json:"name,omitempty"`
	FullName string   `json:"fullname"`
	Pinyin   []string `json:"pinyin,omitempty"`
	Location struct {
		Lat float64 `json:"lat"`
		Lng float64 `json:"lng"`
	} `json:"location"`
	CIdx []int `json:"cidx,omitempty"` // first and last index of its children in the next level
}

// leaf is a district without children: where a place can be looked for.
type leaf struct {
	id, fullname, city, province string
	lat, lng                     float64
}

var districtLevels, districtLeaves = readDistricts()

func leafDistrict(id string) (leaf, bool) { l, found := districtLeaves[id]; return l, found }

func readDistricts() (levels [3][]district, leaves map[string]leaf) {
	leaves = map[string]leaf{}
	var path []*district // above the line that is read
	for line := range strings.Lines(districtTable) {
		cols := strings.Split(strings.TrimSpace(line), "|")
		if len(cols) != 4 || line[0] == '#' {
			continue
		}
		d := district{ID: cols[0], FullName: cols[1]}
		d.Location.Lat, _ = strconv.ParseFloat(cols[2], 64)
		d.Location.Lng, _ = strconv.ParseFloat(cols[3], 64)
		level := 2
		switch {
		case strings.HasSuffix(d.ID, "0000"):
			level = 0
		case strings.HasSuffix(d.ID, "00"), len(path) == 1:
			level = 1
		case !strings.HasSuffix(path[1].ID, "00"):
			level = 1 // of a municipality, whose districts have no city above them
		}
		path = path[:level]
		name := d.FullName[:strings.LastIndexByte(d.FullName, ' ')]
		if level < 2 {
			d.Name, d.Pinyin = name, syllables[name]
			if d.Pinyin == nil {
				d.Pinyin = []string{strings.ToLower(name)}
			}
		}
		at := len(levels[level])
		l := leaf{id: d.ID, fullname: d.FullName, city: name, province: name, lat: d.Location.Lat, lng: d.Location.Lng}
		if level > 0 {
			parent := path[level-1]
			if parent.CIdx == nil {
				parent.CIdx = []int{at, at}
			}
			parent.CIdx[1] = at
			delete(leaves, parent.ID)
			l.province = path[0].Name
			if level == 2 {
				l.city = path[1].Name
			} else if !strings.HasSuffix(d.ID, "00") {
				l.city = path[0].Name
			}
		}
		leaves[d.ID] = l
		levels[level] = append(levels[level], d)
		path = append(path, &levels[level][at])
	}
	return levels, leaves
}

// syllables splits the names whose pinyin the documents or maps write in several parts.
var syllables = map[string][]string{
	"Beijing": {"bei", "jing"}, "Hebei": {"he", "bei"}, "Shijiazhuang": {"shi", "jia", "zhuang"}, "Handan": {"han", "dan"},
	"Heilongjiang": {"hei", "long", "jiang"}, "Harbin": {"ha", "er", "bin"}, "Daqing": {"da", "qing"}, "Shanghai": {"shang", "hai"},
	"Jiangsu": {"jiang", "su"}, "Nanjing": {"nan", "jing"}, "Suzhou": {"su", "zhou"}, "Zhejiang": {"zhe", "jiang"},
	"Hangzhou": {"hang", "zhou"}, "Ningbo": {"ning", "bo"}, "Guangdong": {"guang", "dong"}, "Guangzhou": {"guang", "zhou"},
	"Shenzhen": {"shen", "zhen"}, "Dongguan": {"dong", "guan"}, "Sichuan": {"si", "chuan"}, "Chengdu": {"cheng", "du"},
	"Mianyang": {"mian", "yang"},
}

// getDistrict is wechat/000 §4.5: an envelope without errcode.
func getDistrict(*call) (any, error) {
	return struct {
		Status      int           `json:"status"`
		Message     string        `json:"message"`
		DataVersion string        `json:"data_version"`
		Result      [3][]district `json:"result"`
	}{0, "query ok", "20170510", districtLevels}, nil
}
