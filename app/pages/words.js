/* What the page says, in both languages; the server's own sentences come with its answers. */
'use strict';
window.WORDS = {
  zh: {
    brand: '工会驿站', loading: '请稍候…', signIn: '首次使用，请登录', phone: '手机号', getCode: '获取验证码',
    enterCode: '输入短信验证码', sentTo: '已发送至 ', code: '验证码（6位）', occupation: '您的职业（可不选）',
    consent: '我同意（可不勾选）：为统计驿站使用情况，记录我的到访时间和地点，实名保存180天；当年是否到过某站（不含时间）留到次年1月中旬，用于年度人数；之后只留匿名数字。可随时撤回。不勾选也能开门。',
    openDoor: '登录并开门', resend: '重新获取', resendIn: '秒后可重发', otherPhone: '换个号码', open: '开门',
    decided: '已同意', claimed: '控制器已收到', opened: '门已开', again: '再试一次', elsewhere: '附近现在可用的驿站',
    nowhere: '附近暂时没有可用的驿站。', leave: '我要离开', left: '已记录离开，慢走。', mine: '我的数据',
    official: '请认准本页网址：', tapHere: '站在门前再点。', reloaded: '页面是刷新或返回的，请点按钮开门。',
    opening: '正在开门…', openingNote: '已同意，等门的控制器。', got: '控制器已收到', gotNote: '门马上就开，请准备推门。',
    done: '门已开', doneNote: '请推门进入。', push: '请推门', pushNote: '锁已经打开，等您推门。', shut: '门好像没有打开', shutNote: '如果没进去，请再试一次。', slow: '门还没有回应', slowNote: '信号可能不好，请稍等。',
    expired: '门没有回应', expiredNote: '这次没打开，请再试一次。', failed: '门没有打开', failedNote: '门的设备报告失败，请再试一次。',
    unknown: '不确定门是否打开', unknownNote: '请推一下门；打不开就再试一次。', stopped: '这次没有开门', stoppedNote: '驿站有紧急情况。',
    walkIn: '欢迎', walkInNote: '现在有人值守，门开着，请进。', minutes: '分钟', walk: '步行约 ', metres: '米',
    network: '网络不通，请检查信号后再试一次。', badPhone: '请输入11位手机号。', badCode: '请输入6位数字验证码。',
    waitS: '请等待 ', seconds: ' 秒', noStation: '请扫描门上的二维码',
    withdraw: '撤回同意', give: '同意记录我的到访', exportMe: '导出我的数据', erase: '删除我的账号和数据', eraseSure: '确定删除？再点一次',
    showPass: '出示通行码', passTitle: '通行码', passNote: '请对准门旁的读码器。每30秒自动更新，截图无效。', passLost: '网络不通，通行码已失效。',
    logout: '退出登录', visits: '最近到访', none: '没有记录', close: '收起',
    problems: {
      code_wrong: '验证码不对、已用过或已过期，请重新输入或重新获取。', phone_invalid: '这不是手机号，请检查。',
      visit_not_found: '这次到访已经结束。', not_signed_in: '请先登录。', database_unavailable: '系统忙，请再试一次。',
      internal_error: '系统出错，请再试一次。', request_invalid: '请检查填写的内容。'
    }
  },
  en: {
    brand: 'Union rest station', loading: 'One moment…', signIn: 'First time: sign in', phone: 'Mobile number', getCode: 'Send me a code',
    enterCode: 'Enter the code from the SMS', sentTo: 'Sent to ', code: 'Code (6 digits)', occupation: 'Your work (optional)',
    consent: 'I agree (optional): my visits, with time and place, are kept under my name for 180 days to count how stations are used; that I came to a station in a year, without when, until the middle of the next January, to count each person once; afterwards only anonymous figures. I can withdraw at any time. The door opens without this too.',
    openDoor: 'Sign in and open', resend: 'Send again', resendIn: ' s until you can resend', otherPhone: 'Other number', open: 'Open',
    decided: 'Allowed', claimed: 'Controller has it', opened: 'Door open', again: 'Try again', elsewhere: 'Open near you now',
    nowhere: 'No other station near you is open now.', leave: 'I am leaving', left: 'Noted. Take care.', mine: 'My data',
    official: 'Check the address of this page: ', tapHere: 'Tap when you stand at the door.', reloaded: 'This page was reloaded: tap to open the door.',
    opening: 'Opening…', openingNote: 'Allowed; waiting for the controller at the door.', got: 'Controller has it', gotNote: 'The door is about to open; be ready to push.',
    done: 'Door open', doneNote: 'Push the door and come in.', push: 'Push the door', pushNote: 'It is unlocked and waits for you.', shut: 'The door seems shut', shutNote: 'If you are not in, please try again.', slow: 'The door has not answered yet', slowNote: 'The connection may be weak; please wait.',
    expired: 'The door did not answer', expiredNote: 'It did not open this time; please try again.', failed: 'The door did not open', failedNote: 'Its device reported a failure; please try again.',
    unknown: 'The door may be open', unknownNote: 'Push it; if it stays shut, try again.', stopped: 'Not opened', stoppedNote: 'There is an emergency at the station.',
    walkIn: 'Welcome', walkInNote: 'Staff are here and the door is open.', minutes: ' min', walk: 'about ', metres: ' m',
    network: 'No connection; check your signal and try again.', badPhone: 'Please enter your mobile number.', badCode: 'Please enter the 6 digits.',
    waitS: 'Please wait ', seconds: ' s', noStation: 'Scan the code on the door',
    withdraw: 'Withdraw consent', give: 'Allow my visits to be kept', exportMe: 'Download my data', erase: 'Erase my account and data', eraseSure: 'Sure? Tap again to erase',
    showPass: 'Show my pass', passTitle: 'Your pass', passNote: 'Hold it to the reader at the door. It renews every 30 seconds; a screenshot is of no use.', passLost: 'No connection: this pass is over.',
    logout: 'Sign out', visits: 'Latest visits', none: 'Nothing yet', close: 'Close',
    problems: {}
  }
};
window.OCCUPATIONS = [
  ['rider', '外卖骑手', 'Rider'], ['courier', '快递员', 'Courier'], ['driver', '司机', 'Driver'],
  ['sanitation', '环卫', 'Sanitation'], ['construction', '建筑', 'Building'], ['security', '保安', 'Security'],
  ['traffic', '交通协管', 'Traffic'], ['vendor', '摊贩', 'Vendor'], ['other', '其他', 'Other']
];
