"""Word lists of the name finder: cues, titles, surnames, and words that end a name or are none.

Written for this package from general knowledge of both languages; order within a list says nothing.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    """Comma-separated entries, longest first so that an alternation of them prefers the longest."""
    return tuple(sorted((entry for entry in " ".join(text.split()).split(", ") if entry), key=lambda e: (-len(e), e)))


ENGLISH_TITLES = _words("Dr, DR, Prof, PROF, Professor, Doctor, Mr, MR, Mrs, MRS, Ms, MS, Miss, Mx, Sir, Nurse")

ENGLISH_LABELS = _words("""
    patient, name, patient name, full name, first name, last name, family name, given name, contact name,
    patient's name, referring physician, referring doctor, referring clinician, attending, attending physician,
    consultant, surgeon, physician, doctor, gp, next of kin, emergency contact, contact, mother, father, husband,
    wife, spouse, partner, son, daughter, signed, author, attn
""")

ENGLISH_LEAD_INS = _words("""
    referred by, seen by, signed by, reviewed by, reported by, dear, my name is, named, regards,, sincerely,,
    faithfully,
""")

NAME_PARTICLES = _words("van, von, der, den, de, del, della, di, da, dos, du, la, le, el, al, bin, ibn, ben")

NEVER_IN_A_NAME = frozenset(
    _words("""
    a, an, the, this, that, these, those, he, she, they, we, i, you, it, his, her, their, our, my, your, and, or, but,
    not, no, none, unknown, is, was, has, had, have, with, for, from, to, of, in, on, at, by, as, were, be, been,
    will, would, may, dr, doctor, prof, professor, mr, mrs, ms, miss, mx, sir, madam, patient, patients, nurse,
    consultant, physician, surgeon, gp, colleague, colleagues, all, team, family, name, names, first, last, full, id,
    identity, number, date, dob, birth, born, age, sex, gender, male, female, phone, tel, telephone, mobile, cell,
    fax, email, e-mail, mail, address, contact, information, info, details, record, records, mrn, notes, note,
    history, referral, referred, letter, report, re, clinic, hospital, department, dept, centre, center, ward, unit,
    care, safety, service, services, health, medical, surgery, surgical, oncology, radiology, pathology, imaging,
    breast, cancer, general, university, college, institute, school, street, road, monday, tuesday, wednesday,
    thursday, friday, saturday, sunday, january, february, march, april, june, july, august, september, october,
    november, december, diagnosis, diagnosed, complains, denies, reports, presents, presented, allergies, medication,
    medications
""")
)

CHINESE_TITLES = _words("""
    先生, 女士, 小姐, 太太, 医生, 医师, 大夫, 主任, 教授, 护士长, 护士, 同志, 老师, 院长, 博士
""")

CHINESE_LABELS = _words("""
    姓名, 患者, 病人, 病患, 病者, 联系人, 家属, 监护人, 丈夫, 妻子, 母亲, 父亲, 儿子, 女儿, 配偶, 签名, 签字, 记录者,
    报告人, 审核人, 推荐人, 介绍人, 收件人, 发件人, 申请人, 经办人, 医生, 医师, 大夫, 主任, 教授, 护士, 主刀, 我叫,
    名叫, 叫做
""")

SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖萧田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆"
    "范汪廖石金韦贾夏付傅方邹熊白孟秦邱侯江尹薛闫阎段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪"
    "庄聂章鲁岳翟申詹欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅童凌毕单裴霍涂成苗谷曲盛冉翁蓝骆路游辛靳管柴蒙鲍华喻祁蒲房滕屈饶解"
    "牟艾尤时穆农司卓古吉缪简车项连芦麦褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全佟应臧闵苟邬边卞姬师仇栾隋商刁沙荣巫寇桑郎甄丛仲"
    "虞敖巩明佘池查麻苑迟邝官封谈匡鞠惠荆乐冀郁胥南班储原栗燕楚鄢劳谌奚皮粟冼蔺楼盘满闻位厉伊"
    "陳楊黃趙吳孫馬鄭謝許韓鄧馮蕭葉蘇呂盧鍾陸賈鄒閻賀顧龔萬錢戴嚴湯溫莊聶魯關蘭畢單塗蓋駱藍榮連龍葛劉張羅"
)

COMPOUND_SURNAMES = _words("""
    欧阳, 司马, 上官, 诸葛, 东方, 皇甫, 尉迟, 公孙, 令狐, 慕容, 司徒, 夏侯, 端木, 独孤, 南宫, 长孙, 宇文, 轩辕, 东郭,
    申屠, 赫连, 澹台, 呼延, 完颜
""")

BEFORE_A_LONE_SURNAME = "由请与和是为的在找让向跟及给"

ENDS_A_CHINESE_NAME = (
    "因于在的是为被将已到至向与及或也都很未无曾说称诉患住电就入拟做给让把从由者您你我他她们这那哪吗呢吧啊需请看收术病症痛肿检"
    "诊男女今昨近左右乳腹了着过此该岁等并伴但再仍又即若则"
)

ENDS_A_CHINESE_NAME_WORDS = _words("""
    主诉, 主任, 主治, 主管, 先生, 女士, 小姐, 太太, 医生, 医师, 大夫, 教授, 护士, 同志, 老师, 院长, 博士, 自述, 自行,
    自觉, 自诉, 否认, 来院, 来我, 来诊, 性别, 身份, 联系, 出生, 年龄, 手机, 手术, 门诊, 反复, 突发, 发现, 发热, 体检,
    出院, 出现, 化疗, 复查, 复诊, 随访, 治疗, 服用, 接受, 要求, 同意, 签名, 明日, 明天, 前来, 经过, 可能, 应当, 以及,
    家属, 本人, 转诊, 转入, 转来, 建议, 感觉, 目前, 现在, 现病, 既往, 平素, 有限, 公司, 医院
""")

NOT_CHINESE_NAMES = _words("""
    高热, 高血, 高烧, 高龄, 高度, 高危, 高脂, 黄疸, 黄色, 白细, 白带, 白天, 白内, 方便, 方案, 方法, 方式, 金属, 安静,
    安排, 安全, 文化, 文字, 成人, 成功, 成年, 成分, 成都, 明显, 明确, 明天, 明日, 单纯, 单侧, 单独, 单位, 车祸, 车辆,
    房颤, 房间, 毛发, 麻木, 麻醉, 关节, 关于, 关系, 温度, 温和, 施行, 费用, 费力, 石膏, 石头, 严重, 严格, 马上, 何时,
    何种, 任何, 任意, 任务, 易怒, 易感, 易疲, 牛奶, 查房, 查体, 管床, 管理, 包括, 包块, 项目, 项下, 时常, 时间, 时有,
    全身, 全部, 全科, 全麻, 全程, 应用, 应该, 应激, 连续, 连同, 解释, 解决, 原因, 原发, 原位, 满意, 满月, 位于, 路过,
    华东, 华人, 南方, 南京, 古稀, 古代, 边缘, 边界, 商量, 景象, 闻讯, 游离, 谈话, 万一, 向上, 向下, 江苏, 江西, 安徽,
    甘肃, 宁夏, 沙发, 官方, 封闭, 郁闷, 乐观, 冷汗, 米饭, 党员, 师傅, 皮肤, 皮疹, 皮下, 卫生, 卫健, 龙头, 钱包, 农民,
    农村, 简单, 简介, 申请, 谢谢, 多谢, 高兴, 高手, 高级, 高中, 高考, 周末, 周边, 周围, 周年, 周一, 周二, 周三, 周四,
    周五, 周六, 周日
""")

COUNTRIES_IN_A_CHARACTER = "中美英法俄德日韩朝印巴越泰缅伊澳加苏港台沪京津渝"

NO_ENGLISH_NAMES = NEVER_IN_A_NAME | frozenset(
    _words("""
    about, above, across, after, again, against, almost, already, also, although, always, am, among, another, any,
    anything, are, around, back, because, before, begin, behind, below, between, both, can, cannot, come, could, did,
    do, does, done, down, during, each, either, else, end, even, every, everything, false, few, find, following, get,
    give, go, good, here, how, however, if, instead, into, just, keep, know, less, let, like, look, made, make, many,
    maybe, me, more, most, much, must, near, need, never, next, nothing, now, off, often, old, once, one, only, open,
    other, otherwise, out, over, own, please, put, read, really, run, said, same, see, several, shall, should, show,
    since, so, some, something, soon, still, such, take, test, than, thanks, their, them, then, there, therefore, thing,
    think, thus, together, too, true, try, two, under, until, up, upon, us, use, used, using, value, very, want, way,
    well, went, what, when, where, whether, which, while, who, whom, whose, why, within, without, work, yes, yet, you,
    years, year, month, week, day, today, tomorrow, yesterday, morning, afternoon, evening, night, spring, summer,
    autumn, winter, time, people, man, woman, boy, girl, child, children, home, house, room, right, left, early, late,
    cursor, null, void, asap, btw, diy, eta, faq, fwd, fyi, imo, ok, rsvp, tba, tbc, tbd, todo,
    aadhaar, ein, fein, hkid, iban, imei, itin, nino, nric, ssn, swift, tfn, vin
""")
)

# Common in several countries, and not better known as a place, a firm or a word.
ENGLISH_GIVEN_NAMES = frozenset(
    _words("""
    aaron, abdul, abigail, adam, adrian, agnes, ahmed, aisha, alan, albert, alejandro, alex, alexander, alexandra,
    alexis, alfred, ali, alice, alicia, alison, allison, alyssa, amanda, amber, amelia, amir, amy, ana, andre, andrea,
    andreas, andrew, andy, angela, anita, ann, anna, anne, annette, anthony, antonio, arthur, ashley, audrey, barbara,
    beatrice, ben, benjamin, bernard, beth, betty, beverly, bob, bonnie, brandi, brandon, brandy, brenda, brendan,
    brian, bridget, brittany, bruce, bryan, caitlin, carl, carla, carlos, carmen, carol, caroline, carolyn, carrie,
    catherine, cecilia, cheryl, chloe, chris, christian, christina, christine, christopher, cindy, claire, clara,
    colin, connie, courtney, craig, crystal, cynthia, daisy, dan, daniel, danielle, darren, dave, david, dawn, deborah,
    debra, denise, dennis, derek, diana, diane, diego, dmitri, dominic, donald, donna, doris, dorothy, douglas, dylan,
    edith, edward, eileen, elaine, eleanor, elena, elizabeth, ella, ellen, emily, emma, eric, erica, erik, erika, erin,
    ethan, eugene, evelyn, fatima, felix, fernando, fiona, frank, frederick, gabriel, gareth, gary, gavin, gemma,
    george, gerald, gina, giovanni, glenn, gloria, gordon, grace, graham, greg, gregory, gustavo, gwen, hannah, harold,
    harriet, harry, hassan, heather, heidi, helen, henry, holly, howard, hugh, ian, ibrahim, ingrid, irene, isaac,
    isabel, isabella, ivan, jack, jacob, jacqueline, james, jamie, jan, jane, janet, janice, jasmine, jason, jean,
    jeff, jeffrey, jenna, jennifer, jenny, jeremy, jerry, jesse, jessica, jill, jim, joan, joanna, joanne, joe, joel,
    johannes, john, johnny, jonathan, jorge, jose, joseph, joshua, joyce, juan, judith, judy, julia, julian, julie,
    justin, karen, karl, karla, kate, katherine, kathleen, kathryn, kathy, katie, katrina, kayla, keith, kelly, kenneth,
    kerry, kevin, kim, kimberly, kirsten, kristen, kristi, kristin, kyle, larry, laura, lauren, lee, leila, leo,
    leonard, leslie, liam, linda, lindsay, lindsey, lisa, lois, lori, louis, louise, lucas, lucy, luis, luke, lydia,
    malcolm, marcus, margaret, maria, marie, marilyn, mario, marion, mark, martha, martin, mary, matthew, maureen,
    max, megan, melanie, melissa, mia, michael, michele, michelle, miguel, mike, mohamed, mohammed, molly, monica,
    muhammad, nancy, naomi, natalia, natalie, natasha, nathan, neil, nicholas, nicola, nicole, nigel, nina, noah,
    nora, norma, oliver, olivia, oscar, pablo, pamela, patricia, patrick, paul, paula, pauline, pedro, peggy, penny,
    peter, philip, phillip, phyllis, priya, rachel, ralph, ramon, raymond, rebecca, renee, ricardo, richard, robert,
    roberto, robin, rodney, roger, ronald, rosa, rosemary, roy, ruth, ryan, sabrina, sally, sam, samantha, samuel,
    sandra, sara, sarah, scott, sean, sebastian, sergei, shane, shannon, sharon, shaun, sheila, shelley, shirley,
    simon, sofia, sonia, sophia, sophie, stacey, stacy, stanley, stefan, stella, stephanie, stephen, steve, steven,
    stuart, susan, suzanne, sylvia, tamara, tammy, tanya, tara, teresa, terry, thelma, theresa, thomas, tiffany, tim,
    timothy, tina, tom, tony, tracey, tracy, trevor, tyler, valerie, vanessa, veronica, victor, vincent, vivian,
    walter, wanda, wayne, wendy, william, yolanda, yusuf, yvonne, zachary, zoe
""")
)
