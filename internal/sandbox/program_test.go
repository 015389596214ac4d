package sandbox

// applyMerchantExample is wechat/000 §4.2, verbatim but for the comments.
func applyMerchantExample() obj {
	return obj{
		"first_catid": 476, "second_catid": 477, "qualification_list": sampleMediaID, "headimg_mediaid": sampleMediaID,
		"nickname": "hardenzhang308", "intro": "hardenzhangtest", "org_code": "", "other_files": "",
	}
}

// modifyMerchantExample is wechat/000 §4.4, with a media id for its "xxxxx".
func modifyMerchantExample() obj { return obj{"headimg_mediaid": sampleMediaID, "intro": "x"} }
