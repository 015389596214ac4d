package sandbox

import "fmt"

// wxError is a refusal: HTTP 200 with errcode and errmsg, as WeChat answers.
type wxError struct {
	code int
	msg  string
}

func (e *wxError) Error() string { return fmt.Sprintf("%d %s", e.code, e.msg) }

// refuse is a refusal with WeChat's own text for the code (platform.md §9).
func refuse(code int) error { return &wxError{code, errmsg[code]} }

var errmsg = map[int]string{
	-1:    "system error",
	40001: "invalid credential, access_token is invalid or not latest",
	40004: "invalid media type",
	40005: "invalid file type",
	40009: "invalid image size",
	40013: "invalid appid",
	40097: "invalid args",
	40125: "invalid appsecret",
	40170: "args count exceed count limit",
	41001: "access_token missing",
	41004: "appsecret missing",
	41005: "media data missing",
	41018: "component_appid missing",
	42001: "access_token expired",
	43001: "require GET method",
	43002: "require POST method",
	44001: "empty media data",
	44002: "empty post data",
	45001: "multimedia file size exceeds the limit",
	45009: "reach max api daily quota limit",
	47001: "data format error",
	47002: "data format error, \\uXXXX escapes are not accepted",
	48001: "api unauthorized",
	61003: "component is not authorized by this account",
	61005: "component ticket is expired",
	61006: "component ticket is invalid",
	61007: "api is unauthorized to component",
	61009: "code is invalid",
	61010: "code is expired",
	61011: "invalid component",
	61012: "invalid option name",
	61013: "invalid option value",
	61014: "must use component token for component api",
	61015: "must use api token for function api",
	61023: "refresh_token is invalid",
	65105: "invalid photo url",
	65111: "invalid telephone",
	65114: "photo list empty",
	65115: "poi_id is not exist",
	65118: "store status is invalid",
	76003: "cgi_path is invalid, it must begin with /",
	76021: "cgi_path not found, please check",
	85038: "store has added",
	85039: "store has added by others",
	85040: "store has added by yourseld", // sic, wechat/002
	85041: "credential has used",
	85042: "nearby reach limit",
	85053: "please apply merchant first",
	85054: "poi_id is null, please upgrade first",
	85055: "map_poi_id is invalid",
	85056: "mediaid is invalid",

	// wechat/004, Appendix
	1003:   "the product id does not exist",
	200002: "entry error",
	300001: "creating and updating items is not allowed",
	300002: "the name length does not conform to the rules",
	300003: "price input is not compliant",
	300004: "there is illegal content in the product name",
	300005: "there is illegal content in the picture of the product",
	300006: "image upload failed",
	300007: "the link does not exist in the online version",
	300008: "failed to add items",
	300009: "product review recall failed",
	300010: "the status of the product review is not correct",
	300011: "illegal operation, the item was not created by the API",
	300012: "the audits of today are used up",
	300013: "submitting the audit failed",
	300014: "cannot be deleted during audit",
	300017: "the item was not submitted for audit",
	300021: "the item was added successfully, its audit failed",
}
